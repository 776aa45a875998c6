"""SD103 where no parameter at all gets a gradient: the line that cuts the loss off, and models that only look like it."""

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
        self.a, self.b = nn.Linear(6, 12), nn.Linear(12, {out})
{init}

    def forward(self, x):
        y = self.b(torch.tanh(self.a(x)))
{forward}


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn({batch}, 6, generator=torch.Generator().manual_seed(1)),)


def loss(y):
{loss}
"""


def model(
    forward: str = "return y",
    *,
    init: str = "pass",
    out: int = 3,
    batch: int = 8,
    loss: str = "return (y - 0.3).square().mean()",
) -> str:
    def block(lines: str, indent: int) -> str:
        return "\n".join(" " * indent + line for line in lines.strip().splitlines())

    return MODEL.format(forward=block(forward, 8), init=block(init, 8), out=out, batch=batch, loss=block(loss, 4))


CUT = {
    "detached": model("z = y.detach()  # expect: SD103\nreturn z * 2"),
    "data": model("return y.data.clamp(min=-1)  # expect: SD103"),
    "no-grad": model("with torch.no_grad():\n    z = torch.sigmoid(y)  # expect: SD103\nreturn z + 1"),
    "chosen": model("return F.one_hot(y.argmax(-1), 3).to(x.dtype)  # expect: SD103"),
    "through-numpy": model("return torch.from_numpy(y.detach().numpy())  # expect: SD103"),
    "loss-of-an-item": model(loss="best = y.detach().amax()  # expect: SD103\nreturn (best - 1).square()"),
}
CONSTANT = {
    "centred-alone": model("return y - y.mean(-1, keepdim=True)  # expect: SD103", out=1),
    "shares-of-one": model("w = y.exp()\nreturn w / w.sum(-1, keepdim=True)  # expect: SD103", out=1),
    "standardised-batch-of-one": model("return y - y.mean(0)  # expect: SD103", batch=1),
    "compared-with-itself": model(loss="return F.mse_loss(y, y)  # expect: SD103"),
    "second-derivative-of-relu": model(
        """x = x.detach().requires_grad_(True)
y = self.b(F.relu(self.a(x))).sum()
(slope,) = torch.autograd.grad(y, x, create_graph=True)
(bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)  # expect: SD103
return bend"""
    ),
}
LEARNS = {
    "zero-head": model(init="nn.init.zeros_(self.b.weight); nn.init.zeros_(self.b.bias)"),
    "closed-branch": model("return x[:, :3] + self.gate * y", init="self.gate = nn.Parameter(torch.zeros(()))"),
    "frozen-body": model(init="self.a.requires_grad_(False)"),
    "detached-target": model("return y - y.detach().mean(-1, keepdim=True)"),
    "tiny-loss": model(loss="return 1e-12 * (y - 0.3).square().mean()"),
    "curvature-of-tanh": model(
        """x = x.detach().requires_grad_(True)
y = self.b(torch.tanh(self.a(x))).sum()
(slope,) = torch.autograd.grad(y, x, create_graph=True)
return torch.autograd.grad(slope.sum(), x, create_graph=True)[0]"""
    ),
    "nothing-to-train": model(init="self.requires_grad_(False)"),
}


@pytest.mark.parametrize("name", [*CUT, *CONSTANT])
def test_the_line_that_cuts_everything_off(name: str, tmp_path: Path) -> None:
    code = {**CUT, **CONSTANT}[name]
    report = scanned(code, tmp_path, precisions=["float32"])
    assert report.error is None
    found = [f for f in report.findings if f.code == "SD103"]
    assert {f.location.line for f in found if f.location} == expected_lines(code, "SD103")
    assert [f.severity for f in found] == ["error"]
    assert found[0].evidence["cut"] == ("autograd" if name in CUT else "value")
    assert [v.verdict for v in report.precisions] == ["fails"]


@pytest.mark.parametrize("name", LEARNS)
def test_what_learns_is_silent(name: str, tmp_path: Path) -> None:
    report = scanned(LEARNS[name], tmp_path, precisions=["float32"])
    assert report.error is None
    assert [f.message for f in report.findings if f.severity == "error"] == []


def test_a_pure_function_is_scanned_without_an_optimizer(tmp_path: Path) -> None:
    code = """
import torch
from torch import nn


def build_model():
    return nn.Sequential(nn.AvgPool1d(3), nn.Softplus())


def example_inputs():
    return (torch.randn(4, 2, 30, generator=torch.Generator().manual_seed(0)),)
"""
    for steps in (0, 2):
        report = scanned(code, tmp_path, steps=steps)
        assert report.error is None
        assert [f.code for f in report.findings if f.severity != "info"] == []
        assert [v.verdict for v in report.precisions] == ["safe", "safe", "safe"]
