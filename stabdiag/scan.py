"""The pipeline in one screen: load → probe → judge → triage → report."""

from __future__ import annotations

from collections.abc import Callable

from stabdiag.finding import Finding, Severity
from stabdiag.picture import layers_of, op_rows
from stabdiag.probe.process import probe_in_worker
from stabdiag.report import ScanError, SubjectReport
from stabdiag.request import ScanRequest
from stabdiag.rule import selected
from stabdiag.trace import SubjectFacts, Trace
from stabdiag.triage import triage
from stabdiag.verdict import verdicts

Progress = Callable[[str, float], None]


def scan(request: ScanRequest, progress: Progress | None = None) -> SubjectReport:
    """Scan one subject in a worker process. Never raises for what the user's code does: see `SubjectReport.error`."""
    trace, error = probe_in_worker(request, progress)
    return report_on(trace, request, error)


def report_on(trace: Trace | None, request: ScanRequest, error: ScanError | None = None) -> SubjectReport:
    """Judge what was recorded. A trace without a usable float32 run is an error, whatever else is known."""
    if trace is None:
        path, _, name = request.target.partition(":")
        return SubjectReport(SubjectFacts(path, name, 0, "", ""), error=error)
    base = trace.run("float32")
    if error is None and base is not None and base.error is not None and not base.outputs:
        error = ScanError("forward", f"the model's forward pass failed in float32: {base.error}")
    rules = selected(request.select, request.extend_select, request.ignore)
    found = [finding for rule in rules for finding in rule.check(trace, request.thresholds.get(rule.code))]
    for finding in found:
        finding.path = trace.subject.path
        if finding.code in request.severity:
            finding.severity = Severity(request.severity[finding.code])
    findings = triage(found, trace)
    return SubjectReport(
        subject=trace.subject,
        precisions=verdicts(trace, findings, request.precisions),
        findings=sorted(findings, key=_order),
        layers=layers_of(trace),
        coverage=coverage(trace),
        training=trace.experiments.get("training", {}),
        error=error,
        rules_run=[rule.code for rule in rules],
        op_rows=op_rows(trace),
    )


def coverage(trace: Trace) -> dict[str, object]:
    """What was seen, what was not, and what it cost in bare training steps."""
    base = trace.base
    return {
        "ops": len(base.ops) if base else 0,
        "batches": base.batches if base else 0,
        "seeds": len(trace.seeds()),
        "spent": trace.spent,
        "unseen": trace.unseen,
    }


def _order(finding: Finding) -> tuple[object, ...]:
    at = finding.location
    place = (at.path, at.line, at.column or 0) if at is not None else ("", 0, 0)
    return (-finding.severity.rank, finding.code, place, finding.module, finding.message)
