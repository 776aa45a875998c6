from stabdiag.reports import concise
from tests.reports.sample_report import sample_report


def test_one_line_per_new_finding(snapshot):
    page = concise.render(sample_report())
    assert page == snapshot
    assert "SD703" not in page, "suppressed findings are not shown"
    assert all(line.isprintable() for line in page.splitlines())
