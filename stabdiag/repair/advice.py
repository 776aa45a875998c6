"""The code that a report shows beside a fix: what an edit of the author's own text comes to.

A rule names remedies and says in words what each does. Whether one can be applied here, and how the line reads then, only the
edit itself can tell. A suggestion that does not fit the line is left out where another does; where none fits, the words stand
alone.
"""

from __future__ import annotations

from dataclasses import replace

from stabdiag.finding import Finding, Fix
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.attempt import State, apply
from stabdiag.repair.remedy import named, remedies_for
from stabdiag.settings.request import ScanRequest


def advise(report: SubjectReport, request: ScanRequest) -> None:
    """Fill in `Fix.snippet` of every finding, without running anything."""
    for finding in report.findings:
        suggested = {fix.name: fix for fix in reversed(finding.fixes)}
        told = [replace(f, snippet=_code(f, finding, report, request)) for f in reversed(suggested.values())]
        if finding.fixes and not any(fix.snippet for fix in told):
            told = [*_further(finding, report, request), *told]
        if any(fix.snippet for fix in told):
            told = [fix for fix in told if fix.snippet or not named(fix.name)]
        finding.fixes = told


def _further(finding: Finding, report: SubjectReport, request: ScanRequest) -> list[Fix]:
    """The first remedy of the rule that fits the author's line and keeps the function, where none of the named ones fits."""
    fitting = (r for r in remedies_for(finding) if r.of_source and r.keeps_function)
    made = (apply(remedy, finding, State(), request, report) for remedy in fitting)
    return [attempt.fix for attempt in made if attempt is not None][:1]


def _code(fix: Fix, finding: Finding, report: SubjectReport, request: ScanRequest) -> str:
    made = (apply(remedy, finding, State(), request, report) for remedy in named(fix.name))
    return next((attempt.fix.snippet for attempt in made if attempt is not None), "")
