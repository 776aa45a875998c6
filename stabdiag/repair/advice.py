"""The code that a report shows beside a fix: what an edit of the author's own text comes to.

A rule names remedies and says in words what each does. Whether one can be applied here, and how the line reads then, only the
edit itself can tell; where none can be made the words stand alone.
"""

from __future__ import annotations

from dataclasses import replace

from stabdiag.finding import Finding, Fix
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.attempt import State, apply
from stabdiag.repair.remedy import named
from stabdiag.settings.request import ScanRequest


def advise(report: SubjectReport, request: ScanRequest) -> None:
    """Fill in `Fix.snippet` of every finding, without running anything."""
    for finding in report.findings:
        finding.fixes = [replace(fix, snippet=_code(fix, finding, report, request)) for fix in finding.fixes]


def _code(fix: Fix, finding: Finding, report: SubjectReport, request: ScanRequest) -> str:
    made = (apply(remedy, finding, State(), request, report) for remedy in named(fix.name))
    return next((attempt.fix.snippet for attempt in made if attempt is not None), "")
