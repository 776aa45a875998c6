"""JUnit XML: one suite per model, one case per rule that ran: failed by errors, skipped by accepted findings, else passed."""

from __future__ import annotations

from typing import Any

from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import Report, SubjectReport
from stabdiag.reports.parts.place import one_line, place, title
from stabdiag.rule import all_rules

SUFFIX = ".xml"


def render(report: Report) -> str:
    """The report as JUnit XML. Warnings do not fail a case, they are its output."""
    from junitparser import JUnitXml

    document: Any = JUnitXml("stabdiag")
    for run in report.runs:
        document.add_testsuite(_suite(run))
    document.update_statistics()
    # No times: two runs of the same commit give the same bytes.
    for suite in [document, *document]:
        del suite._elem.attrib["time"]
    text: bytes = document.tostring()
    return '<?xml version="1.0" encoding="utf-8"?>\n' + text.decode() + "\n"


def _suite(run: SubjectReport) -> Any:
    from junitparser import Error, TestCase, TestSuite

    suite = TestSuite(_clean(title(run)))
    if run.error:
        case = TestCase("scan", _clean(title(run)))
        case.result = [Error(_clean(run.error.message), run.error.kind)]
        suite.add_testcase(case)
    names = {code: rule.name for code, rule in all_rules().items()} | {f.code: f.name for f in run.findings}
    for code in sorted({*run.rules_run, *(finding.code for finding in run.findings)}):
        found = [finding for finding in run.findings if finding.code == code]
        suite.add_testcase(_case(run, f"{code} {names.get(code, '')}".strip(), found))
    return suite


def _case(run: SubjectReport, name: str, found: list[Finding]) -> Any:
    from junitparser import Failure, Skipped, TestCase

    case = TestCase(name, _clean(title(run)))
    new = [finding for finding in found if finding.status == "new"]
    errors = [finding for finding in new if finding.severity is Severity.ERROR]
    text = "\n".join(_line(run, finding) for finding in new)
    if errors:
        failure = Failure(_clean(errors[0].message), errors[0].name)
        failure.text = text
        case.result = [failure]
    elif found and not new:
        case.result = [Skipped(f"{len(found)} accepted: {', '.join(sorted({finding.status for finding in found}))}")]
    elif new:
        case.system_out = text
    return case


def _line(run: SubjectReport, finding: Finding) -> str:
    fix = f" Fix: {finding.fixes[0].title}" if finding.fixes else ""
    return _clean(f"{place(run, finding)}: {finding.severity}: {finding.message}{fix}")


def _clean(text: str) -> str:
    """What XML can hold."""
    return one_line(text).encode("utf-8", "backslashreplace").decode()
