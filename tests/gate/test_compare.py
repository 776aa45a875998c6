import copy
import json
from dataclasses import replace

import pytest

from stabdiag.finding import Severity
from stabdiag.gate.compare import compare
from stabdiag.judging.report import Report
from stabdiag.reports import json as json_report
from tests.reports.sample_report import broken, healthy, sick


def changes(change, **options):
    """Changes after `change(run)` was done to the sick model."""
    run = sick()
    change(run)
    return compare(Report("0", [sick()]), Report("0", [run]), **options)["models/net.py:Net"]


def set_layer(run, name, value):
    setattr(run.layers[1], name, value)


def test_nothing_changed():
    assert changes(lambda run: None) == []


@pytest.mark.parametrize(
    ("change", "kind", "regression"),
    [
        (lambda run: run.findings.append(replace(run.findings[0], module="block9", op="clamp")), "new", True),
        (lambda run: run.findings.append(replace(run.findings[1], op="log2")), "new", False),
        (lambda run: run.findings.pop(0), "fixed", False),
        (lambda run: setattr(run.findings[0], "module", "stage3"), "moved", False),
        (lambda run: setattr(run.findings[1], "severity", Severity.ERROR), "severity", True),
        (lambda run: setattr(run.findings[0], "severity", Severity.WARNING), "severity", False),
        (lambda run: setattr(run.precisions[0], "verdict", "fails"), "verdict", True),
        (lambda run: setattr(run.precisions[2], "verdict", "safe"), "verdict", False),
        (lambda run: setattr(run.precisions[0], "verdict", "not-run"), "verdict", False),
        (lambda run: setattr(run.precisions[3], "verdict", "fails"), "verdict", False),
        (lambda run: setattr(run.precisions[1], "headroom_bits", 5.2), "headroom", True),
        (lambda run: setattr(run.precisions[1], "headroom_bits", 9.0), "headroom", False),
        (lambda run: set_layer(run, "gradient_rms", 1e-9), "layer", False),
        (lambda run: set_layer(run, "forward_rms", 0.0), "layer", False),
    ],
)
def test_one_change_is_one_line(change, kind, regression):
    (found,) = changes(change)
    assert (found.kind, found.regression) == (kind, regression)


@pytest.mark.parametrize(
    "change",
    [
        lambda run: setattr(run.findings[0], "message", "60 of 64"),
        lambda run: setattr(run.findings[0], "location", replace(run.findings[0].location, line=99)),
        lambda run: setattr(run.precisions[1], "headroom_bits", 5.3),
        lambda run: set_layer(run, "gradient_rms", 0.7e-4),
        lambda run: set_layer(run, "gradient_rms", None),
        lambda run: run.findings.append(copy.deepcopy(run.findings[2])),
    ],
)
def test_noise_and_what_is_suppressed_is_no_change(change):
    assert changes(change) == []


def test_what_counts_as_a_regression_can_be_chosen():
    def add(run):
        run.findings.append(replace(run.findings[1], op="log2"))

    assert [c.regression for c in changes(add, fail_on="warning")] == [True]
    assert [c.regression for c in changes(add, fail_on="never")] == [False]


def test_models_that_come_go_and_break():
    def one(old, new):
        return [(c.kind, c.regression) for of in compare(Report("0", old), Report("0", new)).values() for c in of]

    assert one([], [healthy()]) == [("model", False)]
    assert one([], [sick()]) == [("model", True)]
    assert one([sick()], []) == [("model", False)]
    gone = sick()
    gone.error = broken().error
    assert one([sick()], [gone]) == [("error", True)]
    assert one([gone], [gone]) == [("error", False)]


def test_the_command(stabdiag, tmp_path):
    worse = sick()
    worse.precisions[0].verdict = "fails"
    for name, run in (("old", sick()), ("new", worse)):
        (tmp_path / f"{name}.json").write_text(json_report.render(Report("0", [run])))
    assert stabdiag("compare", "old.json", "old.json")[:2] == (0, "models/net.py:Net\n  no change\n\nno regressions\n")
    code, out, _ = stabdiag("compare", "old.json", "new.json")
    assert code == 1
    assert out == "models/net.py:Net\n! verdict   float32: safe → fails\n\n1 regression (marked !)\n"
    code, out, _ = stabdiag("compare", "old.json", "new.json", "-f", "json")
    assert code == 1 and json.loads(out)["models/net.py:Net"][0]["regression"] is True
    assert stabdiag("compare", "old.json", "none.json")[0] == 2
