"""SD2: which units, saturations and drifts are reported, on models in many styles, and that verdicts are stable."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

from stabdiag.scanning.pipeline import scan_model
from stabdiag.settings.request import ScanRequest

STABLE = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # every example is a scan: looking for a smaller one takes minutes
)


def codes(model: nn.Module, x: torch.Tensor, loss: Callable = lambda y: y.square().mean()) -> set[tuple[str, str]]:
    """(code, severity) of the SD2 findings, information left out."""
    request = ScanRequest(target="model", precisions=["float32"], select=["SD2"])
    report = scan_model(model, (x,), loss, request)
    assert report.error is None, report.error
    return {(f.code, f.severity.value) for f in report.findings if f.severity != "info"}


class Body(nn.Module):
    """A layer, a nonlinearity, a layer."""

    def __init__(self, act: Callable, bias: float = 0.0, width: int = 32, weight: float | None = None, gate: bool = False):
        super().__init__()
        self.up, self.down, self.act, self.gate = nn.Linear(8, width), nn.Linear(width, 3), act, gate
        nn.init.constant_(self.up.bias, bias)
        if weight is not None:
            nn.init.normal_(self.up.weight, std=weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.up(x)
        return self.down(self.act(h) * h if self.gate else self.act(h))


RELUS = {
    "relu": F.relu,
    "module": nn.ReLU(inplace=True),
    "clamp": lambda h: h.clamp(min=0),
    "clamp both": lambda h: h.clamp(0, 6),
    "relu6": F.relu6,
    "threshold": lambda h: F.threshold(h, 0.0, 0.0),
    "maximum": lambda h: torch.maximum(h, torch.zeros_like(h)),
    "maximum scalar": lambda h: torch.maximum(h, torch.tensor(0.0)),
    "mask": lambda h: h * (h > 0),
    "float mask": lambda h: (h > 0).float() * h,
    "where": lambda h: torch.where(h > 0, h, 0.0),
    "masked_fill": lambda h: h.masked_fill(h < 0, 0.0),
    "absolute": lambda h: (h + h.abs()) / 2,
}
SQUASHING = {
    "sigmoid": (torch.sigmoid, 20.0),
    "tanh": (torch.tanh, 10.0),
    "hardsigmoid": (F.hardsigmoid, 20.0),
    "hardtanh": (F.hardtanh, 10.0),
    "softsign": (F.softsign, 40.0),
    "by hand": (lambda h: 1 / (1 + torch.exp(-h.clamp(-80, 80))), 20.0),
    "quotient": (lambda h: torch.exp(h.clamp(max=60)) / (1 + torch.exp(h.clamp(max=60))), 20.0),
}


def batch(n: int = 64, width: int = 8, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("style", RELUS)
def test_every_style_of_relu(style: str) -> None:
    torch.manual_seed(0)
    assert codes(Body(RELUS[style], bias=-8.0), batch()) == {("SD201", "error")}
    assert codes(Body(RELUS[style]), batch()) == set()


@pytest.mark.parametrize("style", SQUASHING)
def test_every_style_of_squashing(style: str) -> None:
    act, weight = SQUASHING[style]
    torch.manual_seed(0)
    assert ("SD202", "error") in codes(Body(act, weight=weight), batch())
    assert codes(Body(act), batch()) == set()


@pytest.mark.parametrize("bias", [-25.0, 25.0])
def test_saturation_counts_at_both_ends(bias: float) -> None:
    torch.manual_seed(0)
    assert ("SD202", "error") in codes(Body(torch.sigmoid, bias=bias), batch())


def test_gates_held_by_a_bias_are_meant() -> None:
    torch.manual_seed(0)
    assert codes(Body(torch.sigmoid, bias=-10.0, gate=True), batch()) == set()


class Leaky(nn.Module):
    """A recurrence by hand whose gate starts where its bias puts it."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.gate, self.new, self.head = nn.Linear(4 + 16, 16), nn.Linear(4 + 16, 16), nn.Linear(16, 2)
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(len(x), 16)
        for now in x.unbind(1):
            both = torch.cat([now, state], 1)
            k = torch.sigmoid(self.gate(both))
            state = k * state + (1 - k) * torch.tanh(self.new(both))
        return self.head(state)


@pytest.mark.parametrize(("bias", "stuck"), [(22.0, True), (-22.0, True), (7.0, False), (-7.0, False), (0.0, False)])
def test_a_gate_that_nothing_can_move_in_float32(bias: float, stuck: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(24, 9, 4, generator=torch.Generator().manual_seed(1))
    assert codes(Leaky(bias), x) == ({("SD202", "error")} if stuck else set())


@pytest.mark.parametrize(("size", "width", "seed"), [(4.0, 32, 0), (9.0, 32, 1), (9.0, 100, 2)])
def test_flat_units_that_leave_a_gradient_are_no_finding(size: float, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3))
    for layer in (model[0], model[2]):
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    centres = size * torch.tensor([[1.0, 0.2], [-0.8, 0.9], [0.1, -1.0]])
    labels = torch.arange(90) % 3
    x = centres[labels] + 0.7 * torch.randn(90, 2, generator=torch.Generator().manual_seed(seed))
    assert codes(model, x, lambda y: F.cross_entropy(y, labels)) == set()


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
def test_gates_of_recurrent_cells(cell: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = cell(8, 24, batch_first=True)
    x = torch.randn(8, 10, 8, generator=torch.Generator().manual_seed(1))
    assert codes(model, x, lambda y: y[0].square().mean()) == set()
    for p in model.parameters():
        nn.init.normal_(p, std=6.0)
    assert ("SD202", "error") in codes(model, x, lambda y: y[0].square().mean())


def test_output_sigmoid_of_a_classifier_is_meant() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4), nn.Sigmoid())
    nn.init.normal_(model[2].weight, std=30.0)
    target = (torch.arange(64) % 2).float()[:, None].expand(64, 4)
    assert codes(model, batch(), lambda y: F.binary_cross_entropy(y.float(), target)) == set()


def test_squeezed_layers_that_are_off_by_chance() -> None:
    class Squeeze(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 32, 3, padding=1), nn.Linear(32, 4)
            self.down, self.up = nn.Conv2d(32, channels, 1), nn.Conv2d(channels, 32, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.stem(x))
            s = self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))).sigmoid()
            return self.head((x * s).mean((2, 3)))

    images = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    for channels in (8, 32):
        for seed in range(4):
            torch.manual_seed(seed)
            assert codes(Squeeze(channels), images) == set()


def test_batchnorm_with_very_negative_bias() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 3))
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert codes(model, images) == set()
    nn.init.constant_(model[1].bias, -6.0)
    assert codes(model, images) == {("SD201", "error")}


def test_sparsity_of_seventy_percent_and_dropout() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3))
    nn.init.constant_(model[0].bias, -0.3)
    assert codes(model, batch()) == set()


def test_recurrent_relu_is_counted_over_the_sequence() -> None:
    class Unrolled(nn.Module):
        """Each step wakes another quarter of the units."""

        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.Linear(8, 32), nn.Linear(32, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            total = 0.0
            for step in range(4):
                off = torch.full((32,), -50.0)
                off[step * 8 : step * 8 + 8] = 0.0
                total = total + F.relu(self.cell(x) + off)
            return self.head(total)

    torch.manual_seed(0)
    assert codes(Unrolled(), batch()) == set()


@STABLE
@given(
    seed=st.integers(0, 99), n=st.sampled_from([40, 64, 200]), width=st.sampled_from([16, 48, 128]), factor=st.floats(1e-3, 1e3)
)
def test_verdicts_hold_for_other_seeds_sizes_and_loss_scales(seed: int, n: int, width: int, factor: float) -> None:
    torch.manual_seed(seed)
    x = batch(n, seed=seed + 1)
    for bias, expected in ((-8.0, {("SD201", "error")}), (0.0, set())):
        assert codes(Body(F.relu, bias, width), x, lambda y: factor * y.square().mean()) == expected
    assert codes(Body(torch.tanh, width=width), x, lambda y: factor * y.square().mean()) == set()
    assert ("SD202", "error") in codes(Body(torch.tanh, width=width, weight=8.0), x, lambda y: factor * y.square().mean())


@STABLE
@given(seed=st.integers(0, 99), depth=st.integers(10, 30), gain=st.sampled_from([2.0, 0.4]))
def test_drift_compounds_in_plain_networks_and_not_in_residual_streams(seed: int, depth: int, gain: float) -> None:
    class Plain(nn.Module):
        def __init__(self, residual: bool) -> None:
            super().__init__()
            self.layers, self.residual = nn.ModuleList(nn.Linear(24, 24, bias=False) for _ in range(depth)), residual
            for layer in self.layers:
                nn.init.orthogonal_(layer.weight, 1.0 if residual else gain)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = x + layer(F.layer_norm(x, (24,))) if self.residual else layer(x)
            return x

    torch.manual_seed(seed)
    x = batch(32, 24, seed)
    found = codes(Plain(residual=False), x)
    assert any(code == "SD203" for code, _ in found)
    assert "SD203" not in {code for code, _ in codes(Plain(residual=True), x * 0.02)}


@STABLE
@given(seed=st.integers(0, 99), tokens=st.sampled_from([10, 24]), samples=st.sampled_from([4, 8]))
def test_attention_without_residuals_collapses(seed: int, tokens: int, samples: int) -> None:
    class Stack(nn.Module):
        def __init__(self, residual: bool) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.MultiheadAttention(24, 2, batch_first=True) for _ in range(8))
            self.residual = residual

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                mixed = layer(x, x, x)[0]
                x = x + mixed if self.residual else mixed
            return x

    torch.manual_seed(seed)
    x = torch.randn(samples, tokens, 24, generator=torch.Generator().manual_seed(seed))
    assert ("SD205", "error") in codes(Stack(residual=False), x)
    assert codes(Stack(residual=True), x) == set()


@STABLE
@given(seed=st.integers(0, 99), nodes=st.sampled_from([40, 64]), width=st.sampled_from([32, 64]), by_row=st.booleans())
def test_averaging_over_neighbours_again_and_again_leaves_one_line(seed: int, nodes: int, width: int, by_row: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    edges = (torch.rand(nodes, nodes, generator=generator) < 0.15).float()
    edges = ((edges + edges.T + torch.eye(nodes)) > 0).float()
    scale = edges.sum(1).rsqrt()
    adjacency = edges / edges.sum(1, keepdim=True) if by_row else scale[:, None] * edges * scale

    class Graph(nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(16, width), nn.Linear(width, 3)
            self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
            for layer in self.layers:
                nn.init.kaiming_normal_(layer.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(adjacency.to(x) @ self.first(x))
            for layer in self.layers:
                x = F.relu(adjacency.to(x) @ layer(x))
            return self.head(x)

    torch.manual_seed(seed)
    x = torch.randn(nodes, 16, generator=generator)
    found = codes(Graph(20), x)
    assert ("SD205", "error") in found if by_row else "SD205" in {code for code, _ in found}
    assert codes(Graph(1), x) == set()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("xavier", [True, False])
def test_thirty_layers_of_relu_want_kaiming_initialisation(seed: int, xavier: bool) -> None:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(30):
        layer = nn.Linear(128, 128)
        (nn.init.xavier_normal_ if xavier else nn.init.kaiming_normal_)(layer.weight)
        layers += [layer, nn.ReLU()]
    net = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), *layers, nn.Linear(128, 5))
    request = ScanRequest(target="model", precisions=["float32"])
    report = scan_model(net, (batch(64, 32, seed),), lambda y: F.cross_entropy(y, torch.arange(64) % 5), request)
    errors = {f.code for f in report.findings if f.severity == "error"}
    assert "SD101" in errors if xavier else not errors  # the biases of the layers carry the spread, but no signal
