"""The main path is found from the traced graph."""

from __future__ import annotations

import torch
from torch import nn

from stabdiag.evidence.graph.main_path import main_path
from tests.probe.recording import record


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


def test_every_layer_of_a_plain_network_is_a_station() -> None:
    run = record(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(3, 4))
    assert [s.layers for s in main_path(run)] == [("0",), ("2",), ("4",)]
    assert all(s.gradient is not None and s.forward is not None for s in main_path(run))


def test_a_residual_network_is_its_stream() -> None:
    run = record(nn.Sequential(nn.Linear(4, 8), Block(8), Block(8), nn.Linear(8, 2)), torch.randn(3, 4))
    stations = main_path(run)
    assert [s.op.name for s in stations] == ["addmm", "add", "add", "addmm"]
    assert stations[1].layers == ("1.up", "1.down")


def test_positions_and_masks_do_not_start_the_path() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix, self.out = nn.Embedding(10, 8), nn.Linear(8, 8), nn.Linear(8, 10)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            x = self.embed(ids)
            phase = torch.arange(ids.shape[1]).float()[:, None] * torch.linspace(0, 1, 8)
            return self.out(self.mix(x) * phase.cos())

    run = record(Positions(), torch.randint(0, 10, (2, 5)))
    assert [s.layers[0] for s in main_path(run)] == ["embed", "mix", "out"]


def test_a_detached_branch_is_not_on_the_path() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x).detach())

    assert [s.layers for s in main_path(record(Cut(), torch.randn(2, 4)))] == [("b",)]
