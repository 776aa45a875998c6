"""κ by perturbation where an error asks for it, and read off the 16-bit runs where none does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stabdiag.probe.experiments import conditioning
from stabdiag.probe.runner import probe
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Trace
from tests.probe.recording import subject_of


def scanned(model: nn.Module, *inputs: torch.Tensor) -> Trace:
    return probe(subject_of(model, *inputs), ScanRequest("model.py"))


@pytest.mark.parametrize("width", [16, 128])
def test_small_errors_tell_the_condition_number(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, width), nn.Tanh(), nn.LayerNorm(width), nn.Linear(width, 8))
    told = scanned(net, torch.randn(64, 16))
    assert "conditioning" not in told.spent
    monkeypatch.setattr(conditioning, "_told_by_rounding", lambda trace, reference: None)
    moved = scanned(net, torch.randn(64, 16))
    assert moved.spent["conditioning"] > 0
    kappa = moved.experiments.conditioning["rounding"].output
    assert kappa / 3 < told.experiments.conditioning["rounding"].output < 3 * kappa


class Amplifier(nn.Module):
    """The difference of two neighbours, a thousand times as sensitive as its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x) + 1000.0
        return y - y.detach().mean()


def test_large_errors_are_looked_into() -> None:
    torch.manual_seed(0)
    trace = scanned(Amplifier(), torch.randn(64, 16))
    assert trace.spent["conditioning"] > 0
