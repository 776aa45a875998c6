"""One line per finding, `path:line:column: CODE severity message`, as editors and grep read it."""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import Report, SubjectReport
from stabdiag.reports.parts.place import one_line, place

SUFFIX = ".log"


def render(report: Report) -> str:
    """One line per new finding and per subject that was not scanned."""
    lines = [_line(run, finding) for run in report.runs for finding in run.findings if finding.status == "new"]
    lines += [f"{run.subject.path}: not scanned: {one_line(run.error.message)}" for run in report.runs if run.error]
    return "".join(f"{line}\n" for line in lines)


def _line(run: SubjectReport, finding: Finding) -> str:
    return f"{place(run, finding)}: {finding.code} {finding.severity} {one_line(finding.message)}"
