"""Sequences of gradient norms over depth and time, and what is said about them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from stabdiag.evidence.signal.depth import Course, over_depth, over_time
from stabdiag.trace import Op
from tests.probe.recording import record


def course(*norms: float) -> Course:
    ops = tuple(Op(i, "mm", "forward", "", "", 0, str(i), None, [], []) for i in range(len(norms)))
    return Course(ops, norms)


def test_a_steady_loss_is_measured_exactly() -> None:
    steady = course(*(10.0 ** (0.5 * i) for i in range(10)))
    assert steady.slope == pytest.approx(0.5)
    assert steady.decades == pytest.approx(-4.5)
    assert steady.spread_decades == pytest.approx(-4.0)


def test_one_cliff_does_not_compound() -> None:
    cliff = course(1e-3, 1e-3, 1e-3, 1e-3, 1.0, 1.0, 1.0, 1.0)
    assert cliff.decades == pytest.approx(-3.0)
    assert cliff.spread_decades == pytest.approx(0.0)
    assert cliff.steepest.index == 3


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_a_loss_times_a_constant_changes_nothing(factor: float) -> None:
    norms = [3.0, 1.0, 7.0, 2.0, 0.5]
    a, b = course(*norms), course(*(factor * n for n in norms))
    assert (a.slope, a.decades, a.spread_decades) == pytest.approx((b.slope, b.decades, b.spread_decades))


def test_depth_counts_every_layer_of_a_plain_network() -> None:
    net = nn.Sequential(*(nn.Linear(8, 8) for _ in range(6)))
    found = over_depth(record(net, torch.randn(4, 8)))
    assert found is not None
    assert [op.layer for op in found.ops] == list("012345")


def test_depth_is_lost_where_a_function_compares_its_input() -> None:
    class Step(torch.autograd.Function):
        @staticmethod
        def forward(context: object, x: Tensor) -> Tensor:
            return (x > 0).to(x.dtype)

        @staticmethod
        def backward(context: object, gradient: Tensor) -> Tensor:
            return 0.1 * gradient

    class Spiking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(Step.apply(self.a(x)))

    found = over_depth(record(Spiking(), torch.randn(4, 8)))
    assert found is not None
    assert [op.layer for op in found.ops] == ["a", "b"]


@pytest.mark.parametrize(("cell", "carried"), [(nn.RNN, False), (nn.GRU, True), (nn.LSTM, True)])
def test_time_is_the_chain_of_a_recurrent_weight(cell: type[nn.Module], carried: bool) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = cell(4, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.cell(x)[0][:, -1])

    courses = over_time(record(Last(), torch.randn(3, 12, 4)))
    assert [(c.weight, c.carried) for c in courses] == [("cell.weight_hh_l0", carried)]
    assert len(courses[0].norms) == 11
    assert courses[0].slope > 0.05


def test_a_shared_layer_that_is_not_chained_is_no_time() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.layer(x + i) for i in range(10)]).sum(0)

    assert over_time(record(Shared(), torch.randn(3, 4))) == []


def test_a_loop_over_one_weight_is_time_and_not_depth() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(12):
                x = torch.tanh(self.layer(x))
            return x

    run = record(Loop(), torch.randn(3, 4))
    assert over_depth(run) is None
    assert len(over_time(run)) == 1


def test_a_typical_step_is_none_where_a_few_layers_lose_it_all() -> None:
    stages = course(*(10.0 ** (i // 4) for i in range(20)))
    assert stages.decades < -3 and stages.slope > 0.15
    assert stages.typical_step == 0.0
