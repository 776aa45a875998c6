import re

import pytest
from rich.cells import cell_len

from stabdiag.judging.report import Layer, Report, SubjectReport
from stabdiag.reports import text
from stabdiag.reports.parts.layers import axis, thinned
from stabdiag.reports.parts.training import sparkline
from stabdiag.trace import Location, SubjectFacts
from tests.reports.sample_report import dead_relu, healthy, sample_report, sick


def test_the_report_as_a_person_sees_it(snapshot):
    assert text.render(sample_report()) == snapshot


def test_everything_with_verbose_in_a_narrow_window(snapshot):
    assert text.render(sample_report(), width=70, verbose=True) == snapshot


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_line_is_wider_than_the_terminal(width):
    for line in text.render(sample_report(), width=width, verbose=True).splitlines():
        assert cell_len(line) <= width


def test_plain_text_has_no_escapes_and_colour_only_adds_them():
    plain, coloured = text.render(sample_report()), text.render(sample_report(), color=True)
    assert "\x1b" not in plain
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_a_model_s_text_is_never_interpreted():
    page = text.render(Report("0", [sick()]))
    assert r"[bold]not markup[/]\x1b[31m" in page


def test_the_verdict_comes_before_the_findings_and_the_counts_come_last():
    page = text.render(Report("0", [sick()]))
    assert page.index("safe with scaling 2^12") < page.index("error[SD201]") < page.index("warning[SD601]")
    assert page.splitlines()[-1] == "1 error, 1 warning, 1 info · 1 suppressed"


def carets(page):
    lines = page.splitlines()
    at = next(i for i, line in enumerate(lines) if re.match(r" +\| +\^", line))
    start = lines[at].index("^")
    return lines[at - 1][start : start + lines[at].count("^")]


@pytest.mark.parametrize(
    ("source", "start", "end", "marked"),
    [
        ("        return F.relu(x)", 15, 21, "F.relu"),
        ("größe = torch.exp(x)", 10, 19, "torch.exp"),
        ("\treturn x.log()", 8, 15, "x.log()"),
        ("    y = x", None, None, "y = x"),
        ("x = " + "a + " * 60 + "b.exp()", 244, 251, "b.exp()"),
    ],
)
def test_carets_stand_below_what_is_meant(source, start, end, marked):
    run, finding = sick(), dead_relu("net.py")
    finding.location = Location("net.py", 7, start, end, "f", source)
    run.findings = [finding]
    assert carets(text.render(Report("0", [run]))) == marked


def test_a_healthy_model_says_so():
    assert text.render(Report("0", [healthy()])).splitlines()[-1] == "no findings"


def test_bars_shrink_with_the_signal_and_what_is_missing_is_not_zero():
    rows = [Layer(f"l{i}", "", "n.py", i + 1, True, 1.0, 10.0 ** -(9 - 3 * i)) for i in range(4)]
    rows += [Layer("dead", "", "n.py", 9, True, 1.0, 0.0), Layer("loss", "", "n.py", 10, True, 1.0, None)]
    run = SubjectReport(SubjectFacts("n.py", "N", 1, "", ""), layers=rows)
    lines = [line for line in text.render(Report("0", [run])).splitlines() if "line " in line and ("█" in line or "–" in line)]
    gradient = [line.rindex("█") for line in lines[:4]]
    assert gradient == sorted(gradient) and len(set(gradient)) == 4
    assert lines[4].endswith(" 0") and lines[5].endswith(" –")


def test_healthy_differences_look_small():
    low, high = axis([1.0, 1.2])
    assert high - low >= 8 and low <= 0 <= high
    assert axis([]) is None and axis([None, 0.0]) is None


def test_a_thinned_picture_keeps_both_ends():
    rows = [Layer(str(i), "", "n.py", i, True, 1.0, 1.0) for i in range(100)]
    kept = thinned(rows, 24)
    assert len(kept) == 24 and kept[0] is rows[0] and kept[-1] is rows[-1]
    assert thinned(rows[:5], 24) == rows[:5]


def test_training_is_a_curve_per_precision():
    run = healthy()
    curves = {"float32": [2.31, 1.5, 1.02], "float16": [2.31, None]}
    run.training = {
        "optimizer": {"name": "SGD", "lr": 0.1},
        "rows": [
            {"precision": name, "seed": 0, "step": k, "loss": loss, "skipped": loss is None}
            for name, curve in curves.items()
            for k, loss in enumerate(curve)
        ],
    }
    lines = text.render(Report("0", [run])).splitlines()
    assert lines[-5:-2] == [
        "training     loss over 3 steps · SGD at lr 0.1",
        "float32      2.31 → 1.02  █▄▁",
        "float16      2.31 → not finite  ▁×  1 steps skipped",
    ]


def test_a_curve_of_many_steps_is_thinned():
    assert len(sparkline([float(i) for i in range(1000)])) == 40
    assert sparkline([1.0, 1.0]) == "▁▁" and sparkline([None]) == "×"


def test_an_error_that_nobody_asked_for_says_that_it_does_not_count():
    run = sick()
    for finding in run.findings:
        finding.asked, finding.precisions = False, ["float16"]
    report = Report("0", [run])
    assert report.exit_code("error") == 0
    assert report.exit_code("warning") == 1
    last = " ".join(text.render(report).split())
    assert "in float16, which neither file nor command line asks for" in last
    assert "`-p float16`" in last


def test_an_error_that_counts_needs_no_explanation():
    assert Report("0", [sick()]).exit_code("error") == 1
    assert "asks for" not in text.render(Report("0", [sick()]))
