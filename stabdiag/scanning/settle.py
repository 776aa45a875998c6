"""What is done to findings once rules have made them: path and severity, suppression, baseline, order. Nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stabdiag.finding import Finding, Severity
from stabdiag.gate import baseline, suppressions
from stabdiag.gate.baseline import Baseline
from stabdiag.judging.report import Report
from stabdiag.settings.request import ScanRequest


def as_asked(findings: Iterable[Finding], request: ScanRequest, path: str) -> list[Finding]:
    """Findings with the severity that the request gives their rule, and the path of the subject where they have none."""
    found = list(findings)
    for finding in found:
        finding.path = finding.path or path
        finding.severity = Severity(request.severity.get(finding.code, finding.severity))
    return found


def settle(report: Report, requests: Sequence[ScanRequest], accepted: Baseline | None = None) -> None:
    """Apply suppression comments, then the baseline; add what they have to report, where their rules are on; order all."""
    new = suppressions.apply(report)
    if accepted is not None:
        new = [one + more for one, more in zip(new, baseline.apply(report, accepted), strict=True)]
    for request, run, added in zip(requests, report.runs, new, strict=True):
        run.findings += as_asked((f for f in added if f.code in run.rules_run), request, run.subject.path)
        run.findings.sort(key=order)


def order(finding: Finding) -> tuple[object, ...]:
    """Worst first, then by place."""
    at = finding.location
    place = (finding.path, at.line if at is not None else 0)
    return (-finding.severity.rank, *place, finding.code, finding.module, finding.op, finding.precisions, finding.message)
