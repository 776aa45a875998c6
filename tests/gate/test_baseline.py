import copy
from dataclasses import replace

import pytest

from stabdiag.errors import UserError
from stabdiag.finding import Severity
from stabdiag.gate import baseline
from stabdiag.judging.report import Report
from tests.reports.sample_report import healthy, sick


def sick_run():
    run = sick()
    run.rules_run = ["SD001", "SD101", "SD102", "SD201", "SD303", "SD601", "SD703", "SD705"]
    return run


def accepted(tmp_path, *runs):
    (tmp_path / "base.json").write_text(baseline.render(Report("0", list(runs))))
    return baseline.load(str(tmp_path / "base.json"))


def test_accepted_findings_do_not_fail(tmp_path):
    base, report = accepted(tmp_path, sick_run()), Report("0", [sick_run()])
    baseline.apply(report, base)
    assert [f.status for f in report.findings] == ["baselined", "baselined", "suppressed", "baselined"]
    assert report.exit_code() == 0


def test_lines_and_measured_values_may_move(tmp_path):
    base, run = accepted(tmp_path, sick_run()), sick_run()
    finding = run.findings[0]
    finding.location = replace(finding.location, line=99)
    finding.message = "62 of 64 units never fire"
    baseline.apply(Report("0", [run]), base)
    assert finding.status == "baselined"


@pytest.mark.parametrize(
    ("change", "value"), [("module", "block4"), ("op", "clamp_min"), ("precisions", ["float32"]), ("path", "b.py")]
)
def test_another_place_or_precision_is_new(tmp_path, change, value):
    base, run = accepted(tmp_path, sick_run()), sick_run()
    setattr(run.findings[0], change, value)
    baseline.apply(Report("0", [run]), base)
    assert run.findings[0].status == "new"


def test_a_second_finding_of_the_same_kind_is_new(tmp_path):
    base, run = accepted(tmp_path, sick_run()), sick_run()
    run.findings.insert(1, copy.deepcopy(run.findings[0]))
    baseline.apply(Report("0", [run]), base)
    assert [f.status for f in run.findings[:2]] == ["baselined", "new"]
    both = accepted(tmp_path, run)
    again = sick_run()
    again.findings.insert(1, copy.deepcopy(again.findings[0]))
    baseline.apply(Report("0", [again]), both)
    assert [f.status for f in again.findings[:2]] == ["baselined", "baselined"]


def test_an_entry_that_no_longer_occurs_is_reported(tmp_path):
    base, run = accepted(tmp_path, sick_run()), sick_run()
    del run.findings[0]
    ((stale,),) = baseline.apply(Report("0", [run]), base)
    assert (stale.code, stale.severity) == ("SD001", Severity.WARNING)
    assert "SD201 at `block3 relu` no longer occurs" in stale.message
    assert '"SD201"' in (tmp_path / "base.json").read_text().splitlines()[stale.location.line - 1]


def test_but_not_when_it_could_not_have_occurred(tmp_path):
    base = accepted(tmp_path, sick_run())
    narrower, off, other = sick_run(), sick_run(), healthy()
    narrower.precisions = [p for p in narrower.precisions if p.name != "float16"]
    off.rules_run = ["SD001", "SD601", "SD705"]
    for run in (narrower, off):
        del run.findings[0]
    for run in (narrower, off, other):
        assert baseline.apply(Report("0", [run]), base) == [[]]


def test_one_sorted_line_per_entry_whatever_the_order(tmp_path):
    text = baseline.render(Report("0", [sick_run(), healthy()]))
    assert text == baseline.render(Report("0", [healthy(), sick_run()]))
    lines = text.splitlines()
    assert lines[0] == '{"schema": "stabdiag-baseline/v1"}'
    assert len(lines) == len(set(lines)) == 1 + 3 + 3 + 1 + 1
    assert "41" not in text.replace("fingerprint", ""), "no line numbers"


def test_both_sides_of_a_merge_can_be_kept(tmp_path):
    one, two = (baseline.render(Report("0", [run])) for run in (sick_run(), healthy()))
    (tmp_path / "base.json").write_text(one + two)
    merged = baseline.load(str(tmp_path / "base.json"))
    assert len(merged.entries) == 3 and len(merged.measured) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no baseline"),
        ("[1, 2]\n", "damaged in line 1"),
        ('{"schema": "stabdiag-baseline/v2"}\n{"entry": 1}\n', "upgrade stabdiag"),
        ('{"schema": "stabdiag-baseline/v1"}\n{"model": "net', "damaged in line 2"),
        ('{"schema": "stabdiag-baseline/v1"}\n{"fingerprint": "x"}\n', "damaged in line 2"),
        ('{"schema": "stabdiag-baseline/v1"}\n<<<<<<< HEAD\n', "merge conflict in line 2"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, text, said):
    (tmp_path / "base.json").write_text(text)
    with pytest.raises(UserError) as caught:
        baseline.load(str(tmp_path / "base.json"))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match="--write-baseline"):
        baseline.load(str(tmp_path / "none.json"))


def test_windows_line_endings_and_a_byte_order_mark_are_fine(tmp_path):
    text = "\ufeff" + baseline.render(Report("0", [sick_run()])).replace("\n", "\r\n")
    (tmp_path / "base.json").write_bytes(text.encode())
    assert len(baseline.load(str(tmp_path / "base.json")).entries) == 3
