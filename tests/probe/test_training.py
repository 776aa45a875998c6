"""Training steps: loss curves, updates that are lost, curvature, the place where a step breaks, and a model left as found."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stabdiag.probe.birth import birth
from stabdiag.probe.curvature import sharpness
from stabdiag.probe.experiments.training import run as train
from stabdiag.probe.first_steps import advance
from stabdiag.probe.optimizer import choose
from stabdiag.probe.recorder import Recorder
from stabdiag.probe.training import Trainer, norm
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.subject import Subject
from stabdiag.trace import Trace
from tests.probe.training import batch, classes, mlp, subject

CPU = torch.device("cpu")


def sgd(lr: float, momentum: float = 0.0) -> Any:
    return lambda model: torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)


def experiment(case: Subject, **options: Any) -> dict[str, Any]:
    """What the experiment finds, after the recorded runs it builds on."""
    request = ScanRequest("model.py", **({"steps": 6} | options))
    trace, recorder = Trace(case.facts), Recorder(case, CPU)
    for name in dict.fromkeys(("float32", *request.precisions)):
        with recorder.stage(name) as stage:
            trace.runs.append(recorder.record(stage, measure=False))
    train(recorder, trace, request, lambda what, share: None)
    found: dict[str, Any] = trace.experiments.training
    return found


def first(case: Subject, **options: Any) -> dict[str, Any]:
    recorder = Recorder(case, CPU)
    with recorder.stage("float32") as stage:
        return advance(recorder, stage, 2, ScanRequest("model.py", **options))


def test_the_curve_is_that_of_a_bare_loop() -> None:
    case = subject(optimizer=sgd(0.5))
    found = experiment(case, precisions=["float32"], seeds=1)
    model = copy.deepcopy(case.model)
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.5), []
    for _ in range(6):
        optimizer.zero_grad()
        loss = classes(model(batch()))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert [row["loss"] for row in found["rows"]] == losses


def test_the_model_is_left_as_found() -> None:
    case = subject(make=lambda seed: nn.Sequential(mlp(seed), nn.BatchNorm1d(4)), optimizer=sgd(0.5))
    before = {name: tensor.clone() for name, tensor in case.model.state_dict().items()}
    experiment(case, precisions=["float32", "float16", "amp-float16"])
    after = case.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(p.grad is None for p in case.model.parameters())


def test_every_precision_and_seed_has_a_row_per_step() -> None:
    modes = ["float32", "float16", "bfloat16", "amp-float16", "amp-bfloat16"]
    found = experiment(subject(optimizer=sgd(0.1)), precisions=modes, steps=3)
    keys = [(row["precision"], row["seed"], row["step"]) for row in found["rows"]]
    assert sorted(keys) == sorted((mode, seed, step) for mode in modes for seed in range(3) for step in range(3))
    of_seeds = {row["seed"]: row["loss"] for row in found["rows"] if row["step"] == 0 and row["precision"] == "float32"}
    assert len(set(of_seeds.values())) == 3


def test_without_rebuild_there_is_one_seed() -> None:
    case = subject(optimizer=sgd(0.1))
    case.rebuild = None
    assert {row["seed"] for row in experiment(case, precisions=["float32"])["rows"]} == {0}


def test_bfloat16_weights_that_do_not_notice_do_not_move() -> None:
    found = experiment(subject(optimizer=sgd(1e-6)), precisions=["float32", "bfloat16"], seeds=1)
    of = {p: [row["loss"] for row in found["rows"] if row["precision"] == p] for p in ("float32", "bfloat16")}
    assert of["float32"][-1] < of["float32"][0]
    assert of["bfloat16"][-1] == of["bfloat16"][0]


@settings(max_examples=20, deadline=None)
@given(st.floats(-6, 0), st.integers(0, 5))
def test_lost_updates_are_those_that_bfloat16_would_lose(exponent: float, seed: int) -> None:
    rate = 10.0**exponent
    case = subject(make=lambda k: mlp(seed), optimizer=sgd(rate))
    tally = first(case)["parameters"]
    model, lost, moving = copy.deepcopy(case.model), 0, 0
    for _ in range(2):
        model.zero_grad()
        classes(model(batch())).backward()
        with torch.no_grad():
            for p in model.parameters():
                after = p - rate * p.grad
                update = after - p
                stored = p.to(torch.bfloat16)
                lost += int(((update != 0) & ((stored.double() + update.double()).to(torch.bfloat16) == stored)).sum())
                moving += int((update != 0).sum())
                p.copy_(after)
    assert sum(t["moving"] for t in tally) == moving
    assert sum(t["lost"]["bfloat16"] for t in tally) == pytest.approx(lost, abs=2)


def test_steps_that_fail_are_told() -> None:
    found = first(subject(loss=lambda output: classes(output) * float("nan")))
    assert found["taken"] == 0
    assert found["steps"][0]["broke"] == "loss"

    class Refusing(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            raise RuntimeError("not today")

    found = first(subject(optimizer=lambda model: Refusing(model.parameters(), lr=0.1)))
    assert (found["taken"], found["error"]) == (0, "RuntimeError: not today")


def test_a_norm_does_not_overflow_by_itself() -> None:
    assert norm([torch.full((4,), 1e30)]) == pytest.approx(2e30)
    assert norm([torch.full((4,), 60000.0, dtype=torch.float16)]) == pytest.approx(120000, rel=1e-3)
    assert norm([torch.tensor([float("inf")])]) == float("inf")
    assert norm([]) == 0.0


def test_clipping_that_zeroes_is_noticed() -> None:
    huge = subject(loss=lambda output: classes(output) * 1e22, optimizer=sgd(0.1))
    assert first(huge, clip=1.0)["steps"][0]["clipped_to_zero"]
    assert not first(huge)["steps"][0]["clipped_to_zero"]
    assert not first(subject(optimizer=sgd(0.1)), clip=1.0)["steps"][0]["clipped_to_zero"]


def test_the_scale_is_halved_until_a_step_is_accepted() -> None:
    case = subject(loss=lambda output: classes(output) * 100, optimizer=sgd(1e-4))
    rows = [r for r in experiment(case, precisions=["amp-float16"], seeds=1)["rows"] if r["precision"] == "amp-float16"]
    skipped = [row["skipped"] for row in rows]
    assert skipped[0]
    assert not skipped[-1]
    assert [row["scale"] for row in rows[:3]] == [2.0**16, 2.0**15, 2.0**15 if not skipped[1] else 2.0**14]


def test_an_overflow_that_is_there_at_scale_1_is_structural() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x * 1e6) / 1e6

    case = subject(make=lambda seed: Net(), optimizer=sgd(0.1))
    run = next(r for r in experiment(case, precisions=["amp-float16"], seeds=1)["runs"] if r["precision"] == "amp-float16")
    assert run["structural"]
    assert run["birth"]["phase"] == "forward"
    assert run["birth"]["kind"] == "inf"


def test_a_nan_born_in_the_optimizer_step_is_located() -> None:
    """Adam's epsilon is 0 in float16: where the gradient squares to 0, the step divides by 0."""
    case = subject(optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-3))
    run = next(r for r in experiment(case, precisions=["float16"], seeds=1)["runs"] if r["precision"] == "float16")
    assert run["broke"] == "parameters"
    assert (run["birth"]["phase"], run["birth"]["op"], run["birth"]["layer"]) == ("step", "addcdiv", "0")


def test_a_nan_born_in_the_third_forward_is_located() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(2.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.log(self.weight) * x.mean() * 0 + self.weight

    case = subject(make=lambda seed: Net(), loss=lambda output: output, optimizer=sgd(1.0))
    run = experiment(case, precisions=["float32"], seeds=1)["runs"][0]
    assert (run["broke"], run["taken"]) == ("loss", 4)
    assert (run["birth"]["op"], run["birth"]["phase"]) == ("log", "forward")
    assert run["birth"]["location"]["source"].strip().startswith("return torch.log")


def test_a_sound_step_has_no_birth() -> None:
    case = subject(optimizer=sgd(0.1))
    recorder = Recorder(case, CPU)
    with recorder.stage("float32") as stage:
        trainer = Trainer(recorder, stage, choose(case, stage.model, ScanRequest("model.py")))
        assert birth(trainer, Trace(case.facts), 0) is None


def curvature(case: Subject, steps: int = 0) -> dict[str, Any]:
    recorder = Recorder(case, CPU)
    with recorder.stage("float32") as stage:
        trainer = Trainer(recorder, stage, choose(case, stage.model, ScanRequest("model.py")))
        for _ in range(steps):
            trainer.step()
        return sharpness(trainer)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=8), st.floats(1e-3, 1.0), st.sampled_from([0.0, 0.9]))
def test_the_eigenvalue_of_a_quadratic(eigenvalues: list[float], rate: float, momentum: float) -> None:
    class Quadratic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(len(eigenvalues)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0.5 * (torch.tensor(eigenvalues).to(self.weight) * self.weight.square()).sum()

    found = curvature(subject(make=lambda s: Quadratic(), loss=lambda output: output, optimizer=sgd(rate, momentum)))
    *_, second, largest = sorted(eigenvalues)
    assert found["eigenvalue"] <= largest * 1.0001
    # A few products from one start give a lower bound; how close it comes depends on the gap below the largest.
    assert found["eigenvalue"] >= (largest * 0.8 if largest >= 2 * second else min(eigenvalues) * 0.999)
    assert found["ratio"] == pytest.approx(found["eigenvalue"] * rate / (2 + 2 * momentum))


def test_a_negative_dominant_eigenvalue_does_not_hide_the_largest() -> None:
    class Saddle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (torch.tensor([-4.0, 1.0]) * self.weight.square()).sum()

    found = curvature(subject(make=lambda s: Saddle(), loss=lambda output: output, optimizer=sgd(0.1)))
    assert found["eigenvalue"] == pytest.approx(2.0, rel=0.1)


def test_an_unknown_limit_is_said() -> None:
    found = curvature(subject(optimizer=lambda model: torch.optim.Adagrad(model.parameters())))
    assert found["ratio"] is None
    assert "Adagrad" in found["reason"]


def test_ctrl_c_keeps_what_is_known() -> None:
    case = subject(optimizer=sgd(0.1))
    trace, recorder = Trace(case.facts), Recorder(case, CPU)
    with recorder.stage("float32") as stage:
        trace.runs.append(recorder.record(stage, measure=False))
    calls: list[str] = []

    def progress(what: str, share: float) -> None:
        calls.append(what)
        if len(calls) == 4:
            raise KeyboardInterrupt

    train(recorder, trace, ScanRequest("model.py", steps=100, precisions=["float32"]), progress)
    found = trace.experiments.training
    assert found["interrupted"]
    assert len(found["rows"]) == 4
