"""GitHub workflow commands: one annotation per new finding, errors first, because a step shows only the first ten of a kind.

Escaping: `%`, CR and LF in messages; `:` and `,` too in properties (github.com/actions/toolkit, command.ts).
"""

from __future__ import annotations

from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import Report, SubjectReport
from stabdiag.reports.parts.place import columns, in_repository, one_line
from stabdiag.reports.sarif import message

SUFFIX = ""  # annotations are read from stdout only
COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def render(report: Report) -> str:
    """The annotations, one per line."""
    lines = [
        _command("error", {"file": in_repository(run.subject.path), "title": "not scanned"}, run.error.message)
        for run in report.runs
        if run.error
    ]
    new = [(run, finding) for run in report.runs for finding in run.findings if finding.status == "new"]
    lines += [_annotation(run, finding) for run, finding in sorted(new, key=lambda pair: -pair[1].severity.rank)]
    return "".join(f"{line}\n" for line in lines)


def _annotation(run: SubjectReport, finding: Finding) -> str:
    at = finding.location
    properties = {"file": in_repository(at.path if at else run.subject.path), "line": str(at.line if at else 1)}
    start, end = columns(at) if at else (None, None)
    if start:
        properties |= {"col": str(start), "endColumn": str(end or start)}
    properties["title"] = f"{finding.code} {finding.name}"
    return _command(COMMANDS[finding.severity], properties, message(finding))


def _command(name: str, properties: dict[str, str], text: str) -> str:
    joined = ",".join(
        f"{key}={_escaped(one_line(value)).replace(':', '%3A').replace(',', '%2C')}" for key, value in properties.items()
    )
    return f"::{name} {joined}::{_escaped(one_line(text))}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
