"""What the first optimizer step does to stored weights: SD505 where an epsilon is 0, SD301 otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rule_examples import expected_lines, scanned

MODEL = """
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2)){cast}


def example_inputs():
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    {blank}
    return (x{cast},)


def loss(y):
    return {factor} * (y - 0.5).square().mean()


def make_optimizer(model):
    return torch.optim.{optimizer}
"""


def model(optimizer: str, blank: bool = False, cast: str = "", factor: float = 1.0) -> str:
    return MODEL.format(optimizer=optimizer, factor=factor, blank="x[:, 2] = 0.0" if blank else "pass", cast=cast)


BREAKS = {
    "adam-without-epsilon": (model("Adam(model.parameters(), eps=0.0)  # expect: SD505", blank=True), "SD505", "float32"),
    "rmsprop-without-epsilon": (model("RMSprop(model.parameters(), eps=0.0)  # expect: SD505", blank=True), "SD505", "float32"),
    "adamw-on-half-weights": (model("AdamW(model.parameters())  # expect: SD505", cast=".half()"), "SD505", "float16"),
    "rate-beyond-half": (
        model("SGD(model.parameters(), lr=6e4)  # expect: SD301", cast=".half()", factor=100.0),
        "SD301",
        "float16",
    ),
}
HOLDS = {
    "no-blank-channel": model("Adam(model.parameters(), eps=0.0)"),
    "blank-with-epsilon": model("Adagrad(model.parameters(), lr=0.01)", blank=True),
    "sgd-on-half-weights": model("SGD(model.parameters(), lr=0.01)", cast=".half()"),
    "larger-epsilon-on-half-weights": model("Adam(model.parameters(), eps=1e-4)", cast=".half()"),
    "epsilon-of-float32-weights": model("Adam(model.parameters())"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_optimizers_line_is_named(name: str, tmp_path: Path) -> None:
    code, rule, precision = BREAKS[name]
    report = scanned(code, tmp_path)
    found = [f for f in report.findings if f.code == rule and precision in f.precisions]
    assert {f.location.line for f in found if f.location} == expected_lines(code, rule)
    assert [f.severity for f in found] == ["error"]
    assert found[0].fixes


@pytest.mark.parametrize("name", HOLDS)
def test_weights_that_stay_finite_are_silent(name: str, tmp_path: Path) -> None:
    report = scanned(HOLDS[name], tmp_path)
    assert [f.message for f in report.findings if f.code in ("SD505", "SD301") and f.severity != "info"] == []
