"""SD504 for state that the forward pass updates: what 16 bits hold still, and what follows all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from stabdiag.evidence.numbers.state import states
from stabdiag.trace import Op, Run, Stats, Value
from tests.rule_examples import expected_lines, scanned

MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 4)
        {init}

    def forward(self, x):
        with torch.no_grad():
{update}
        return self.fc(x - self.mean)


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (1 + torch.rand(32, 8, generator=torch.Generator().manual_seed(1)),)


def loss(y):
    return nn.functional.cross_entropy(y, torch.arange(32) % 4)
"""


def model(update: str, init: str = 'self.register_buffer("mean", torch.full((8,), 0.5))') -> str:
    return MODEL.format(update="\n".join(f"            {line}" for line in update.splitlines()), init=init)


STILL = {
    "assigned": model("self.mean = 0.9995 * self.mean + 0.0005 * x.mean(0)  # expect: SD504"),
    "by-difference": model("self.mean -= 5e-4 * (self.mean - x.mean(0))  # expect: SD504"),
    "in-two-steps": model("self.mean.mul_(0.9995)  # expect: SD504\nself.mean.add_(x.mean(0), alpha=5e-4)"),
    "weighted-by-a-tensor": model("self.mean.lerp_(x.mean(0), torch.tensor(5e-4, dtype=x.dtype))  # expect: SD504"),
}
FOLLOWS = {
    "fast": model("self.mean.lerp_(x.mean(0), 0.1)"),
    "float32": model("self.mean = self.mean.float().lerp(x.float().mean(0), 5e-4)", "self.mean = torch.full((8,), 0.5)"),
    "made-anew": model("self.mean = 0.5 * x.mean(0)"),
    "power-iteration": model(
        "u = self.fc.weight @ self.mean\nself.mean = nn.functional.normalize(self.fc.weight.T @ u, dim=0)"
    ),
}


@pytest.mark.parametrize("name", STILL)
def test_what_stands_still(name: str, tmp_path: Path) -> None:
    report = scanned(STILL[name], tmp_path)
    found = [f for f in report.findings if f.code == "SD504"]
    assert {f.location.line for f in found if f.location} == expected_lines(STILL[name], "SD504")
    worst = {p: f.severity.value for f in found for p in f.precisions}
    assert worst["bfloat16"] == "error"
    assert "float32" not in worst


@pytest.mark.parametrize("name", FOLLOWS)
def test_what_follows_is_silent(name: str, tmp_path: Path) -> None:
    report = scanned(FOLLOWS[name], tmp_path)
    assert [f.message for f in report.findings if f.code == "SD504"] == []


def test_a_counter_warns(tmp_path: Path) -> None:
    init = 'self.register_buffer("mean", torch.zeros(8)); self.register_buffer("seen", torch.zeros(()))'
    report = scanned(model("self.seen += 1  # expect: SD504", init), tmp_path)
    found = [f for f in report.findings if f.code == "SD504"]
    assert {f.severity.value for f in found} == {"warning"}
    assert {f.location.source.strip() for f in found if f.location} == {"self.seen += 1  # expect: SD504"}


def _run(*ops: tuple[str, list[int], dict[str, float]]) -> Run:
    """A buffer (value 0) and a result (value 1), then ops that make a value each; the last one is the buffer's."""
    run = Run("bfloat16")
    ones = Stats(count=4, min=0.5, max=1.0, max_abs=1.0, sampled=4)
    run.values = [
        Value("buffer", "mean", None, "bfloat16", (4,), stats=ones),
        Value("input", "x", None, "bfloat16", (4,), stats=ones),
    ]
    for name, inputs, attributes in ops:
        index = len(run.ops)
        run.ops.append(Op(index, name, "forward", "", "Net", 0, "", None, inputs, [len(run.values)], dict(attributes)))
        run.values.append(Value("result", "", index, "bfloat16", (4,), stats=ones))
    run.state = {"mean": len(run.values) - 1}
    return run


@pytest.mark.parametrize(
    ("ops", "keeps"),
    [
        ([("lerp_", [0, 1], {"weight": 0.25})], 0.75),
        ([("mul_", [0], {"other": 0.75}), ("add_", [2, 1], {"alpha": 0.25})], 0.75),
        ([("sub", [0, 1], {}), ("mul", [2], {"other": 0.25}), ("sub_", [0, 3], {})], 0.75),
        ([("rsub", [0, 1], {}), ("div", [2], {"other": 4.0}), ("add_", [0, 3], {})], 0.75),
        ([("add_", [0, 1], {})], 1.0),
    ],
)
def test_the_share_it_keeps(ops: list[tuple[str, list[int], dict[str, float]]], keeps: float) -> None:
    (state,) = states(_run(*ops))
    assert state.keeps == pytest.approx(keeps)


def test_what_is_not_known_is_no_state() -> None:
    assert list(states(_run(("mm", [0, 1], {})))) == []
    assert list(states(_run(("mul_", [0, 1], {})))) == []
