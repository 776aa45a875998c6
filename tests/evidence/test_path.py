"""The way along which signals are judged over depth: what carries the gradient, and what is time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stabdiag.evidence.signal.path import signal_path
from stabdiag.trace import Run
from tests.probe.recording import record


def passed(run: Run) -> list[tuple[str, ...]]:
    return [station.layers for station in signal_path(run)]


class Stream(nn.Module):
    """Residual blocks whose branches may start as nothing."""

    def __init__(self, depth: int, zero: bool) -> None:
        super().__init__()
        self.up = nn.ModuleList(nn.Linear(8, 16) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(16, 8) for _ in range(depth))
        self.stem, self.head = nn.Linear(8, 8), nn.Linear(8, 2)
        for layer in self.down:
            if zero:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for up, down in zip(self.up, self.down, strict=True):
            x = x + down(torch.relu(up(x)))
        return self.head(x)


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_residual_network_is_its_stream(seed: int, zero: bool) -> None:
    torch.manual_seed(seed)
    run = record(Stream(5, zero), torch.randn(16, 8))
    assert passed(run) == [("stem",), *((f"up.{i}", f"down.{i}") for i in range(5)), ("head",)]


class Loop(nn.Module):
    """One cell over time, read by a head at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.new, self.state, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, answers = x.new_zeros(len(x), 8), []
        for now in x.unbind(1):
            h = torch.tanh(self.new(now) + self.state(h))
            answers.append(self.head(h))
        return torch.stack(answers, 1)


@pytest.mark.parametrize("steps", [2, 12, 30])
def test_steps_of_a_loop_are_not_layers(steps: int) -> None:
    run = record(Loop(), torch.randn(5, steps, 4))
    assert len(signal_path(run)) <= 3
    assert {layer for station in passed(run) for layer in station} == {"new", "state", "head"}


class Sliced(nn.Module):
    """All weights in one parameter, applied at one line."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.weights, self.by = nn.Parameter(torch.randn(6, 8, 8) / 8**0.5), by

    def forward(self, x: Tensor) -> Tensor:
        parts = self.weights.unbind(0) if self.by == "unbind" else [self.weights[i] for i in range(6)]
        for weight in parts:
            x = torch.tanh(x @ weight)
        return x


@pytest.mark.parametrize("by", ["unbind", "index"])
def test_layers_cut_from_one_parameter_are_layers(by: str) -> None:
    assert len(signal_path(record(Sliced(by), torch.randn(4, 8)))) == 6


def test_weights_of_a_graph_and_masks_are_not_followed() -> None:
    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

        def forward(self, x: Tensor, a: Tensor) -> Tensor:
            a = a / a.sum(1, keepdim=True)
            for layer in self.layers:
                x = torch.relu(a @ layer(x))
            return x

    run = record(Graph(), torch.randn(9, 6), torch.rand(9, 9))
    assert [layer for station in passed(run) for layer in station] == [f"layers.{i}" for i in range(4)]


def test_a_run_that_broke_has_no_way() -> None:
    assert signal_path(Run("float32")) == []
