from stabdiag.judging.report import Report
from stabdiag.reports import github
from tests.reports.sample_report import sample_report, sick


def test_the_annotations_as_they_are(snapshot):
    assert github.render(sample_report()) == snapshot


def test_errors_come_first_at_their_line():
    run = sick()
    run.findings.reverse()
    lines = github.render(Report("0", [run])).splitlines()
    assert [line.split()[0] for line in lines] == ["::error", "::warning", "::notice"]
    assert "file=models/net.py,line=41,col=16,endColumn=22,title=SD201 dead-relu::" in lines[0]


def test_nothing_of_a_model_can_make_a_command_of_its_own():
    run = sick()
    run.findings[0].message = "100 %\n::set-output name=x::y\r::error::"
    run.findings[0].name = "a:b,c"
    line = github.render(Report("0", [run])).splitlines()[0]
    assert "title=SD201 a%3Ab%2Cc::" in line and "100 %25 ::set-output" in line
    assert github.render(Report("0", [run])).count("\n") == 3
