from junitparser import Error, Failure, JUnitXml, Skipped

from stabdiag.judging.report import Report
from stabdiag.reports import junit
from tests.reports.sample_report import sample_report, sick


def test_the_document_as_it_is(snapshot, fixed_rules):
    assert junit.render(sample_report()) == snapshot


def test_one_suite_per_model_and_one_case_per_rule():
    suites = list(JUnitXml.fromstring(junit.render(sample_report()).encode()))
    assert [suite.name for suite in suites] == ["models/net.py:Net", "models/ok.py:GPT", "models/missing.py"]
    cases = {case.name.split()[0]: case.result for case in suites[0]}
    assert [code for code, result in cases.items() if not result] == ["SD101", "SD301", "SD601", "SD705"]
    assert isinstance(cases["SD201"][0], Failure) and isinstance(cases["SD703"][0], Skipped)
    assert isinstance(next(iter(suites[2])).result[0], Error)


def test_control_characters_make_no_broken_xml():
    run = sick()
    run.findings[0].message = "\x00\x1b[31m ]]> & < \ud800"
    assert "]]&gt;" in junit.render(Report("0", [run]))
    JUnitXml.fromstring(junit.render(Report("0", [run])).encode())
