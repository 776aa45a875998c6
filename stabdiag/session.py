"""One run of the tool: every request scanned, the findings settled, one Report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from stabdiag import __version__, baseline, suppressions
from stabdiag.baseline import Baseline
from stabdiag.finding import Finding, Severity
from stabdiag.report import Report, SubjectReport
from stabdiag.request import RunOptions, ScanRequest

Progress = Callable[[str, str, float], None]


def run(requests: Sequence[ScanRequest], options: RunOptions, progress: Progress | None = None) -> Report:
    """Scan every request, `options.jobs` at a time; findings are settled and ordered, worst first.

    Those below `options.min_severity` are left out.
    `progress(target, what, share)` is called while a subject is scanned, with share from 0 to 1.
    """
    floor = Severity(options.min_severity).rank

    def one(request: ScanRequest) -> SubjectReport:
        from stabdiag.scan import scan  # type: ignore

        result: SubjectReport = scan(request, partial(progress, request.target) if progress else None)
        return result

    accepted = baseline.load(options.baseline) if options.baseline else None
    # Each scan has a worker process of its own; the threads here only wait for them.
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        report = Report(__version__, list(pool.map(one, requests)))
    settle(report, accepted)
    for request, subject in zip(requests, report.runs, strict=True):
        for finding in subject.findings:
            finding.severity = Severity(request.severity.get(finding.code, finding.severity))
        subject.findings = sorted((f for f in subject.findings if f.severity.rank >= floor), key=_order)
    return report


def settle(report: Report, accepted: Baseline | None = None) -> None:
    """Apply suppression comments, then the baseline, to findings as the rules made them."""
    for run in report.runs:
        for finding in run.findings:
            finding.path = finding.path or (finding.location.path if finding.location else run.subject.path)
    suppressions.apply(report)
    if accepted is not None:
        baseline.apply(report, accepted)
    for run in report.runs:
        run.findings = [f for f in run.findings if f.code != "SD001" or "SD001" in run.rules_run]


def _order(finding: Finding) -> tuple[object, ...]:
    line = finding.location.line if finding.location else 0
    return (-finding.severity.rank, finding.path, line, finding.code, finding.module, finding.op, finding.precisions)
