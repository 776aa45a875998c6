"""One run of the tool: every request scanned, the findings settled, one Report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from stabdiag import __version__
from stabdiag.finding import Finding, Severity
from stabdiag.report import Report, SubjectReport
from stabdiag.request import RunOptions, ScanRequest

Progress = Callable[[str, str, float], None]


def run(requests: Sequence[ScanRequest], options: RunOptions, progress: Progress | None = None) -> Report:
    """Scan every request, `options.jobs` at a time, and settle the findings.

    `progress(target, what, share)` is called while a subject is scanned, with share from 0 to 1.
    """

    def one(request: ScanRequest) -> SubjectReport:
        from stabdiag.scan import scan  # type: ignore

        result: SubjectReport = scan(request, partial(progress, request.target) if progress else None)
        return result

    # Each scan has a worker process of its own; the threads here only wait for them.
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        report = Report(__version__, list(pool.map(one, requests)))
    return settle(report, options)


def settle(report: Report, options: RunOptions) -> Report:
    """Drop findings below `options.min_severity` and order the rest: worst first, then by place."""
    floor = Severity(options.min_severity).rank
    for run in report.runs:
        for finding in run.findings:
            finding.path = finding.path or (finding.location.path if finding.location else run.subject.path)
        run.findings = sorted((f for f in run.findings if f.severity.rank >= floor), key=_order)
    return report


def _order(finding: Finding) -> tuple[object, ...]:
    line = finding.location.line if finding.location else 0
    return (-finding.severity.rank, finding.path, line, finding.code, finding.module, finding.op, finding.precisions)
