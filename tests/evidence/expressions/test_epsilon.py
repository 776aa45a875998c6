"""A bound or an epsilon that rounds to the very number it is to keep away from protects nothing; one that does not, does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evidence.expressions.zoo import model_file
from tests.rule_examples import scanned

LOST = {
    "bound that is 1": ("return torch.tanh(2 * self.a(h)).clamp(-1 + 1e-9, 1 - 1e-9)", "return torch.acos(out).mean()"),
    "bound before 1 - x²": (
        "return torch.tanh(2 * self.a(h)).clamp(-1 + 1e-9, 1 - 1e-9)",
        "return torch.log(1 - out ** 2).mean()",
    ),
    "epsilon added to 1": ("return torch.tanh(2 * self.a(h))", "return torch.log(1 + 1e-9 - out ** 2).mean()"),
    "epsilon below float32": ("return F.relu(self.a(h))", "return torch.log(out.sum(1) + 1e-60).mean()"),
}
KEPT = {
    "bound below 1": ("return torch.tanh(2 * self.a(h)).clamp(-0.99, 0.99)", "return torch.acos(out).mean()"),
    "epsilon inside": ("return torch.tanh(2 * self.a(h))", "return torch.log((1 - out ** 2).clamp(min=1e-3)).mean()"),
    "bounded by construction": ("return 0.5 * torch.tanh(self.a(h))", "return torch.log(1 + 1e-9 - out ** 2).mean()"),
    "softmax": ("return torch.softmax(self.a(h), 1)", "return -(out * torch.log(out + 1e-8)).sum(1).mean()"),
}


def told(text: tuple[str, str], folder: Path) -> list[tuple[str, str]]:
    report = scanned(model_file(*text), folder, ignore=["SD1", "SD2", "SD3", "SD4", "SD7", "SD8", "SD501", "SD502", "SD503"])
    assert report.error is None
    return [(f.code, f.severity) for f in report.findings if f.severity != "info"]


@pytest.mark.parametrize("style", LOST)
def test_epsilons_that_float32_loses_are_errors_told_once(style: str, tmp_path: Path) -> None:
    assert told(LOST[style], tmp_path) == [("SD505", "error")]


@pytest.mark.parametrize("style", KEPT)
def test_epsilons_that_guard_are_silent(style: str, tmp_path: Path) -> None:
    assert told(KEPT[style], tmp_path) == []


def test_a_bound_that_is_1_in_16_bits_only_is_a_warning(tmp_path: Path) -> None:
    text = ("return torch.sigmoid(self.one(h)).clamp(1e-6, 1 - 1e-6)", "return -torch.log(1 - out).mean()")
    assert told(text, tmp_path) == [("SD505", "warning")]
