import json as plain_json

import pytest

from stabdiag.errors import UserError
from stabdiag.finding import Severity
from stabdiag.judging.report import Layer, Report
from stabdiag.reports import json
from stabdiag.trace import Location
from tests.reports.sample_report import sample_report, sick


def test_the_schema_as_it_is_promised(snapshot):
    assert json.render(sample_report()) == snapshot


def test_what_is_written_can_be_read_and_written_again():
    text = json.render(sample_report())
    assert json.render(json.load(text)) == text


def test_reading_gives_the_report_back():
    report = json.load(json.render(sample_report()))
    finding = report.runs[0].findings[0]
    assert finding.severity is Severity.ERROR
    assert finding.fixes[0].proven is True
    assert finding.location == sample_report().runs[0].findings[0].location
    assert finding.fingerprint == sample_report().runs[0].findings[0].fingerprint
    assert report.exit_code() == sample_report().exit_code() == 2


def test_what_is_not_finite_is_null_and_floats_have_six_digits():
    data = plain_json.loads(json.render(sample_report()), parse_constant=pytest.fail)
    evidence = data["runs"][0]["findings"][0]["evidence"]
    assert evidence == {"dead": 61, "units": 64, "bound": 0.000732422, "ratio": None, "largest": None}
    assert data["runs"][0]["precisions"][0]["output_error"] == 3.12346e-07


def test_columns_count_characters_from_one_and_survive_the_way_back():
    run = sick()
    location = run.findings[1].location
    written = plain_json.loads(json.render(Report("0", [run])))["runs"][0]["findings"][1]["location"]
    assert location.source[written["column"] - 1 : written["end_column"] - 1] == "torch.log(torch.softmax(z, dim=-1))"
    assert json.load(json.render(Report("0", [run]))).findings[1].location == location


def test_a_file_name_that_is_not_utf_8_is_written_escaped():
    run = sick()
    run.findings[0].location = Location("b\udcfcro.py", 1)
    json.render(Report("0", [run])).encode()


def test_a_huge_report_is_thinned_but_keeps_findings_and_main_path():
    run = sick()
    run.layers = [Layer(f"layer{i}" * 10, "mul", "n.py", i, i % 10 == 0, 1.0, 1.0) for i in range(30_000)]
    run.findings[0].evidence["values"] = list(range(100_000))
    text = json.render(Report("0", [run]))
    assert len(text.encode()) <= json.LIMIT
    again = json.load(text)
    assert len(again.findings) == 4 and len(again.runs[0].layers) == 3000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.render(sample_report())[:2000], "no complete JSON"),
        ("", "no complete JSON"),
        ("[]", "no stabdiag report"),
        ('{"schema": "sarif"}', "no stabdiag report"),
        ('{"schema": "stabdiag/v2", "runs": []}', "upgrade stabdiag"),
        ('{"schema": "stabdiag/v1", "runs": []}', "'version' is missing"),
        ('{"schema": "stabdiag/v1", "version": "0", "runs": [3]}', "damaged"),
        (json.render(sample_report()).replace('"safe"', '"fine"'), "verdict `fine`"),
        (json.render(sample_report()).replace('"error",', '"awful",', 1), "awful"),
        (json.render(sample_report()).replace('"line": 41', '"line": "41"', 1), "`line` is '41', expected int"),
    ],
)
def test_a_damaged_report_is_refused_in_one_sentence(text, said):
    with pytest.raises(UserError, match=r"run\.json") as caught:
        json.load(text, "run.json")
    assert said in str(caught.value) and "\n" not in str(caught.value)
