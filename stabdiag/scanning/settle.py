"""What is done to findings once rules have made them: path and severity, suppression, baseline, order. Nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stabdiag.finding import Finding, Severity
from stabdiag.gate import baseline, suppressions
from stabdiag.gate.baseline import Baseline
from stabdiag.judging.report import Report
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import SubjectFacts


def as_asked(findings: Iterable[Finding], request: ScanRequest, path: str) -> list[Finding]:
    """Findings with the severity that the request gives their rule, and the path of the subject where they have none."""
    found = list(findings)
    for finding in found:
        finding.path = finding.path or path
        finding.severity = Severity(request.severity.get(finding.code, finding.severity))
    return found


def weigh(findings: Iterable[Finding], request: ScanRequest, subject: SubjectFacts) -> None:
    """Note which findings are about a precision that somebody wants: one of the request or the file, or that weights are
    stored in; float32 always is. The others weigh less in a gate, and in a library's code, which nobody who reads it can edit,
    they are warnings altogether: the verdict of the precision says what is the matter. So is what rests on a guessed loss."""
    wanted = {"float64", "float32", *subject.stored, *(request.precisions or subject.training.get("precisions", []))}
    for finding in findings:
        finding.asked = not finding.precisions or bool(wanted & set(finding.precisions)) or finding.code in request.severity
        if finding.location is not None and finding.location.library:
            finding.severity = finding.weight
        if finding.severity is Severity.ERROR and finding.code not in request.severity and _rests_on_a_guess(finding, subject):
            finding.severity = Severity.WARNING


def _rests_on_a_guess(finding: Finding, subject: SubjectFacts) -> bool:
    """Whether a finding is about the gradients or the training of a loss that was guessed although the file has its own."""
    gradients = finding.phase in ("backward", "step") or (finding.location is None and finding.phase == "loss")
    return bool(subject.unrun) and gradients


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
