from dataclasses import replace

import pytest

from stabdiag.finding import Severity
from stabdiag.gate.ratchet import losses
from stabdiag.judging.report import Layer
from tests.reports.sample_report import healthy

RULES = ["SD101", "SD102", "SD303"]


def run(headroom=118.0, gradients=(0.5, 0.6, 0.8, 1.0)):
    made = healthy()
    made.rules_run = RULES
    made.precisions[0].headroom_bits = headroom
    made.layers = [
        Layer(f"l{i}", "relu", "net.py", i + 1, True, 1.0, g, None, 0.1 if i == 1 else 1.0) for i, g in enumerate(gradients)
    ]
    return made


def before(headroom=118.0, ratio=0.5):
    return {"float32": {"headroom_bits": headroom}, "": {"gradient_ratio": ratio}}


def test_what_stays_is_no_loss():
    assert [*losses(run(), before(), "base.json")] == []
    assert [*losses(run(headroom=130.0), before(), "base.json")] == []
    assert [*losses(run(), {}, "base.json")] == []


@pytest.mark.parametrize(("now", "count"), [(117.1, 0), (117.0, 1), (80.0, 1)])
def test_one_bit_of_headroom_is_a_loss(now, count):
    found = [*losses(run(headroom=now), before(), "base.json")]
    assert len(found) == count
    if found:
        assert (found[0].code, found[0].severity, found[0].precisions) == ("SD303", Severity.ERROR, ["float32"])
        assert f"from 118.0 to {now:.1f} bits" in found[0].message


@pytest.mark.parametrize(("first", "code"), [(0.5, None), (0.06, None), (0.04, "SD101"), (15.0, None), (25.0, "SD102")])
def test_one_decade_of_gradient_ratio_is_a_loss_in_either_direction(first, code):
    found = [*losses(run(gradients=(first, 0.6, 0.8, 1.0)), before(), "base.json")]
    assert [f.code for f in found] == ([code] if code else [])
    if code == "SD101":
        assert found[0].location.line == 2, "where the gradient shrinks most"


def test_a_rule_that_is_off_says_nothing():
    made = run(headroom=80.0)
    made.rules_run = ["SD101"]
    assert [*losses(made, before(), "base.json")] == []


def test_what_the_rule_itself_says_is_not_said_twice():
    made = run(headroom=80.0)
    made.findings = [*losses(made, before(), "base.json")]
    assert [*losses(made, before(), "base.json")] == []


def test_the_ratio_is_missing_where_gradients_are():
    assert replace(run(), layers=[]).gradient_ratio is None
    assert run(gradients=(0.0, 1.0)).gradient_ratio is None
    assert run(gradients=(None, 1.0)).gradient_ratio is None
    assert run(gradients=(0.5, None, 1.0)).gradient_ratio == 0.5
