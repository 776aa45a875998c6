"""Verdicts on gradients, symmetry and inputs are those of the model, not of its seed, size, names or the loss's constant."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stabdiag.finding import Finding
from stabdiag.judging.persistence import persistent
from stabdiag.probe.experiments import zero_gradient
from stabdiag.probe.first_steps import advance
from stabdiag.probe.recorder import Recorder
from stabdiag.rule import all_rules, measurements
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.subject import Inputs, Subject
from stabdiag.trace import SubjectFacts, Trace
from tests.rules.gradient_zoo import DEFECTIVE, HEALTHY, Case, noise, probed, seeded

STABLE = settings(max_examples=6, deadline=None, derandomize=True)
RULES = ("SD101", "SD102", "SD103", "SD104", "SD105", "SD701", "SD702", "SD703")
ONE_HALF = ("tiny_loss", "tiny_branch")  # need the float16 runs


def recorded(case: Case) -> Trace:
    """The float64 run, the float32 run and the one after two steps: what all rules but SD104 and SD105 judge."""
    facts = SubjectFacts("model.py", "Net", 0, "", "", declared=["inputs", "loss"])
    subject = Subject(case.build().train(), lambda k: Inputs(case.inputs), lambda out, _: case.loss(out), facts)
    trace, request = Trace(facts), ScanRequest("model.py", precisions=["float32"])
    recorder = Recorder(subject, torch.device("cpu"), measurements())
    with recorder.stage("float64") as stage:
        trace.runs.append(recorder.record(stage, measure=False))
    with recorder.stage("float32") as stage:
        trace.runs.append(recorder.record(stage))
    with recorder.stage("float32") as stage:
        advance(recorder, stage, 2, request)
        trace.runs.append(recorder.record(stage, step=2))
    zero_gradient.run(recorder, trace, request, lambda what, share: None)
    return trace


def judged(trace: Trace) -> list[Finding]:
    """Findings of the rules for gradients, symmetry and inputs, before triage."""
    return [finding for code in RULES for finding in persistent(all_rules()[code].check(trace), trace)]


def loud(findings: list[Finding]) -> dict[str, str]:
    """Worst severity by code, information left out."""
    ordered = sorted(findings, key=lambda f: f.severity.rank)
    return {f.code: f.severity.value for f in ordered if f.severity.value != "info"}


sizes = st.tuples(st.integers(0, 1000), st.integers(24, 56), st.integers(12, 40))


@pytest.mark.parametrize("name", [n for n in DEFECTIVE if n not in ONE_HALF])
@given(size=sizes)
@settings(STABLE, max_examples=2)
def test_a_defect_is_found_whatever_its_size(name: str, size: tuple[int, int, int]) -> None:
    case = DEFECTIVE[name](*size)
    found = loud(judged(recorded(case)))
    assert "error" in {found.get(code) for code in case.codes}, found


@pytest.mark.parametrize("name", HEALTHY)
@given(size=sizes)
@settings(STABLE, max_examples=2)
def test_a_healthy_model_is_left_alone_whatever_its_size(name: str, size: tuple[int, int, int]) -> None:
    case = HEALTHY[name](*size)
    found = loud(judged(recorded(case)))
    assert "error" not in found.values(), found
    assert set(found) <= set(case.warns), found


@pytest.mark.parametrize("name", ["sigmoid_stack", "unit_variance_mlp", "constant_units", "dead_layer", "he_mlp", "layerscale"])
@given(exponent=st.integers(-20, 12))
@STABLE
def test_a_constant_before_the_loss_changes_no_verdict(name: str, exponent: int) -> None:
    case = (DEFECTIVE | HEALTHY)[name](1, 32, 16)
    times = replace(case, loss=lambda out: case.loss(out) * 2.0**exponent)
    assert loud(judged(recorded(times))) == loud(judged(recorded(case)))


def test_names_and_the_order_of_equal_layers_change_no_verdict() -> None:
    class Net(nn.Module):
        def __init__(self, names: list[str]) -> None:
            super().__init__()
            self.order = names
            layers = {name: nn.Linear(24, 24) for name in sorted(names)}
            for name in names:
                self.add_module(name, layers[name])
                nn.init.normal_(layers[name].weight, std=0.02)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for name in self.order:
                x = torch.tanh(getattr(self, name)(x))
            return x

    verdicts = []
    for names in ([f"layer{i}" for i in range(7)], list("gfedcba"), ["relu", "norm", "attention", "dropout", "head", "x", "y"]):
        case = Case(seeded(0, lambda names=names: Net(names)), (noise(0, 8, 24),), lambda out: (out - 1).square().mean())  # type: ignore[misc]
        verdicts.append(loud(judged(recorded(case))))
    assert verdicts[0] == verdicts[1] == verdicts[2]
    assert verdicts[0]["SD101"] == "error"


@pytest.mark.parametrize("name", ONE_HALF)
def test_lost_float16_gradients_are_an_error(name: str) -> None:
    found = judged(probed(DEFECTIVE[name](0, 32, 16)))
    assert loud(found).get("SD104") == "error"
    assert next(f for f in found if f.code == "SD104").fixes


@pytest.mark.parametrize("name", ["layerscale", "rezero", "zero_head", "dense_mean_loss", "attention"])
def test_gradients_that_scaling_or_two_steps_bring_back_are_no_error(name: str) -> None:
    assert "SD104" not in loud(judged(probed(HEALTHY[name](0, 32, 16))))


@pytest.mark.long
@pytest.mark.parametrize("name", [*HEALTHY, *DEFECTIVE])
def test_the_whole_zoo(name: str) -> None:
    case = (HEALTHY | DEFECTIVE)[name](3, 40, 16)
    found = loud(judged(probed(case)))
    if case.codes:
        assert set(case.codes) & set(found) or "SD201" in case.codes, found
    else:
        assert "error" not in found.values() and set(found) <= set(case.warns), found
