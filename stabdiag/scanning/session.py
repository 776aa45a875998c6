"""One run of the tool: every request scanned, the findings settled, one Report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Event

from stabdiag import __version__
from stabdiag.finding import Severity
from stabdiag.gate import baseline
from stabdiag.gate.baseline import Baseline
from stabdiag.judging.report import Report, SubjectReport
from stabdiag.scanning.settle import settle
from stabdiag.settings.request import RunOptions, ScanRequest

Progress = Callable[[str, str, float], None]


def run(requests: Sequence[ScanRequest], options: RunOptions, progress: Progress | None = None) -> Report:
    """Scan every request, `options.jobs` at a time; findings are settled and ordered, worst first.

    Those below `options.min_severity` are left out.
    `progress(target, what, share)` is called while a subject is scanned, with share from 0 to 1.
    """
    accepted = baseline.load(options.baseline) if options.baseline else None
    if options.jobs > 1 and len(requests) > 1:
        runs = _at_once(requests, options.jobs, progress or _silent)
    else:
        runs = [_scanned(request, progress or _silent) for request in requests]
    report = Report(__version__, runs)
    settle(report, requests, accepted)
    _try_fixes(report, requests, accepted, progress or _silent)
    keep_from(report, options.min_severity)
    return report


def _scanned(request: ScanRequest, progress: Progress) -> SubjectReport:
    from stabdiag.scanning.pipeline import scan

    return scan(request, partial(progress, request.target))


def _try_fixes(report: Report, requests: Sequence[ScanRequest], accepted: Baseline | None, progress: Progress) -> None:
    """Prove the fixes of what was found, where a request asks for it."""
    for request, subject in zip(requests, report.runs, strict=True):
        if not request.try_fixes or subject.error is not None:
            continue
        from stabdiag.repair.search import annotate, prove

        def trial(asked: ScanRequest) -> SubjectReport:
            found = Report(__version__, [_scanned(asked, progress)])
            settle(found, [asked], accepted)
            return found.runs[0]

        annotate(subject, prove(replace(request, try_fixes=False), trial, before=subject))


def _silent(target: str, what: str, share: float) -> None:
    pass


def _at_once(requests: Sequence[ScanRequest], jobs: int, progress: Progress) -> list[SubjectReport]:
    """Scan in threads, which only wait for their worker processes. Ctrl-C reaches them at their next sign of progress."""
    interrupted = Event()

    def passing_on(target: str, what: str, share: float) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        progress(target, what, share)

    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(_scanned, request, passing_on) for request in requests]
        try:
            return [future.result() for future in waiting]
        except BaseException:
            interrupted.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def keep_from(report: Report, severity: str) -> None:
    """Leave out findings below a severity."""
    floor = Severity(severity).rank
    for run in report.runs:
        run.findings = [finding for finding in run.findings if finding.severity.rank >= floor]
