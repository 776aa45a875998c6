"""SD306: what raises because of its numbers is found and judged in every precision; programs that are wrong are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from stabdiag.subject.subject import SubjectError
from tests.rule_examples import expected_lines, scanned

MODEL = """
import math
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
{forward}


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(6, 4, generator=torch.Generator().manual_seed(1)),)

{loss}
"""


def model(forward: str, loss: str = "def loss(y):\n    return y.square().mean()") -> str:
    return MODEL.format(forward="\n".join(f"        {line}" for line in forward.splitlines()), loss=loss)


RAISES = {
    "solve": model("g = torch.ones(4, 4, dtype=x.dtype)\nreturn torch.linalg.solve(g, self.a(x).T)  # expect: SD306"),
    "cholesky-of-a-difference": model(
        "h = self.a(x)\nreturn torch.linalg.cholesky(h.T @ h - 5 * torch.eye(4, dtype=x.dtype))  # expect: SD306"
    ),
    "scores-as-weights": model("k = torch.multinomial(self.a(x), 1)  # expect: SD306\nreturn self.a(x).gather(1, k)"),
    "negative-scale": model("m = self.a(x)\nreturn Normal(m, m, validate_args=True).rsample()  # expect: SD306"),
    "scores-as-probabilities": model(
        "return self.a(x)", "def loss(y):\n    return F.binary_cross_entropy(y, torch.ones_like(y))  # expect: SD306"
    ),
    "python-division": model("n = int(x.abs().max() > 99)\nreturn self.a(x) * (1 / n)  # expect: SD306"),
    "without-a-loss": model("h = self.a(x)\nreturn torch.linalg.inv(h.T @ h * 0)  # expect: SD306", ""),
}
FINE = {
    "solve": model(
        "g = torch.ones(4, 4, dtype=x.dtype) + torch.eye(4, dtype=x.dtype)\nreturn torch.linalg.solve(g, self.a(x).T)"
    ),
    "weights": model("k = torch.multinomial(self.a(x).softmax(-1), 1)\nreturn self.a(x).gather(1, k)"),
    "scale": model("m = self.a(x)\nreturn Normal(m, F.softplus(m) + 1e-2).rsample()"),
}


@pytest.mark.parametrize("name", RAISES)
def test_the_line_that_raises(name: str, tmp_path: Path) -> None:
    report = scanned(RAISES[name], tmp_path, precisions=["float32", "bfloat16"])
    assert report.error is None
    found = [f for f in report.findings if f.code == "SD306"]
    assert {f.location.line for f in found if f.location} == expected_lines(RAISES[name], "SD306")
    assert [f.severity for f in found] == ["error"]
    assert found[0].fixes
    assert [v.verdict for v in report.precisions] == ["fails", "fails"]


@pytest.mark.parametrize("name", FINE)
def test_what_does_not_raise_is_silent(name: str, tmp_path: Path) -> None:
    report = scanned(FINE[name], tmp_path, precisions=["float32"])
    assert report.error is None
    assert [f.message for f in report.findings if f.severity == "error"] == []


def test_a_matrix_is_described(tmp_path: Path) -> None:
    report = scanned(RAISES["solve"], tmp_path, precisions=["float32"])
    (found,) = [f for f in report.findings if f.code == "SD306"]
    assert found.evidence["largest"] == pytest.approx(4.0)
    assert abs(found.evidence["smallest"]) < 1e-12
    assert found.evidence["symmetric"]


def test_one_precision_alone_raises(tmp_path: Path) -> None:
    code = model("h = self.a(x)\nn = float((1e-5 * h.abs().amax()).square())\nreturn h * (1e-10 / n)  # expect: SD306")
    report = scanned(code, tmp_path)
    assert report.error is None
    (found,) = [f for f in report.findings if f.code == "SD306"]
    assert found.precisions == ["float16"]
    assert {v.name: v.verdict for v in report.precisions}["float32"] != "fails"


def test_a_wrong_program_is_no_finding(tmp_path: Path) -> None:
    with pytest.raises(SubjectError, match="raises"):
        scanned(model("return self.a(x) + torch.ones(5)"), tmp_path)
