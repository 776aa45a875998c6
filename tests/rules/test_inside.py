"""SD501 and SD503 where no output shows it: errors made in the loss, and in side branches that a residual stream dilutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rule_examples import expected_lines, scanned

MODEL = """
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
{forward}


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(16, 8, generator=torch.Generator().manual_seed(1)),)


def loss(y):
{loss}
"""


def model(forward: str = "return self.b(torch.tanh(self.a(x)))", loss: str = "return y.square().mean()") -> str:
    def block(text: str, indent: int) -> str:
        return "\n".join(" " * indent + line for line in text.splitlines())

    return MODEL.format(forward=block(forward, 8), loss=block(loss, 4))


IN_THE_LOSS = {
    "stirling": (
        model(loss="a = 1e7 * (1 + F.softplus(y))\nreturn (torch.lgamma(a + 2) - torch.lgamma(a)).mean()  # expect: SD503"),
        "SD503",
    ),
    "log-of-one-minus": (
        model(
            loss="p = torch.exp(y - 17)\nd = torch.log(1 - p).sum(1)  # expect: SD501\nreturn (d * 1e6 + 0.3).square().mean()"
        ),
        "SD501",
    ),
}
RIGHT = {
    "digamma": model(loss="a = 1e7 * (1 + F.softplus(y))\nreturn 2 * torch.digamma(a).mean()"),
    "variance": model(loss="a = 3e3 + y\nreturn a.var(0).mean()"),
    "log1p": model(loss="p = torch.exp(y - 17)\nd = torch.log1p(-p).sum(1)\nreturn (d * 1e6 + 0.3).square().mean()"),
    "wrong-value-right-gradient": model(loss="p = torch.exp(y - 17)\nreturn -torch.log(1 - p).sum() * 1e6"),
    "a-loss-near-zero": model(loss="return (y - y.detach().mean() + 1e-7).mean() + 0 * y.square().mean()"),
}
PHASES = """t = torch.arange(16, device=x.device) + 4000
{phase}
h = torch.cat([phase.sin(), phase.cos()], -1)
return x + 0.05 * self.b(h)"""
DILUTED = model(
    PHASES.format(phase="phase = t.to(x.dtype)[:, None] * torch.logspace(0, -3, 8, dtype=x.dtype)  # expect: SD501")
)
EXACT = model(
    PHASES.format(phase="phase = (t.double()[:, None] * torch.logspace(0, -3, 8, dtype=torch.float64) % 6.2831853).to(x.dtype)")
)


@pytest.mark.parametrize("name", IN_THE_LOSS)
def test_errors_made_in_the_loss(name: str, tmp_path: Path) -> None:
    code, rule = IN_THE_LOSS[name]
    report = scanned(code, tmp_path, precisions=["float32"])
    told = [f for f in report.findings if rule in (f.code, *(c.code for c in f.consequences))]  # or folded into its cause
    assert {f.location.line for f in told if f.location} == expected_lines(code, rule)
    assert [f.severity for f in told] == ["error"]
    found = [f for f in (*told, *told[0].consequences) if f.code == rule]
    assert "the loss is off by" in found[0].message


@pytest.mark.parametrize("name", RIGHT)
def test_losses_that_are_right_are_silent(name: str, tmp_path: Path) -> None:
    report = scanned(RIGHT[name], tmp_path, precisions=["float32"])
    assert [f.message for f in report.findings if f.code in ("SD501", "SD503")] == []


def test_a_branch_that_the_stream_hides(tmp_path: Path) -> None:
    report = scanned(DILUTED, tmp_path)
    found = [f for f in report.findings if f.code == "SD501" and "bfloat16" in f.precisions]
    assert {f.location.line for f in found if f.location} == expected_lines(DILUTED, "SD501")


def test_exact_phases_are_silent(tmp_path: Path) -> None:
    report = scanned(EXACT, tmp_path)
    assert [f.message for f in report.findings if f.code == "SD501"] == []
