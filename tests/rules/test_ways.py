"""Where depth lies when not every layer must be passed or when time joins in, and the line that is to blame: pairs of a defect
and its repaired version."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from stabdiag.finding import Finding
from stabdiag.scanning.pipeline import scan_model
from stabdiag.settings.request import ScanRequest


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def found(model: nn.Module, *inputs: Tensor, loss: Callable = lambda y: y.square().mean()) -> dict[str, Finding]:
    """The findings of the rules about depth by code, information left out."""
    request = ScanRequest(target="model", precisions=["float32"], select=["SD101", "SD102", "SD103", "SD203", "SD205"])
    report = scan_model(model, inputs, loss, request)
    assert report.error is None, report.error
    return {f.code: f for f in report.findings if f.severity != "info"}


def source(finding: Finding) -> str:
    return finding.location.source if finding.location else ""


class GraphNet(nn.Module):
    """An adjacency matrix that takes more ops to normalise than a layer has."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(24, 24, bias=False) for _ in range(20))
        self.norms = nn.ModuleList(nn.LayerNorm(24) for _ in range(20))
        self.residual = residual
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        a = adjacency + adjacency.mT + torch.eye(len(adjacency))
        a = a.clamp(max=1).sqrt().square().abs()
        d = a.sum(1).rsqrt()
        a = d[:, None] * a * d
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + 0.1 * layer(a @ norm(x)) if self.residual else layer(a @ x)
        return x


def test_an_adjacency_matrix_is_not_the_data() -> None:
    graph = (noise(60, 60, seed=2) > 1.4).float()
    assert "SD205" in found(GraphNet(False), noise(60, 24), graph)
    assert not found(GraphNet(True), noise(60, 24), graph)


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor, sharpness: float) -> Tensor:
        ctx.save_for_backward(u)
        ctx.sharpness = sharpness
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        return gradient / (1 + ctx.sharpness * u.abs()) ** 2, None


class SpikingNet(nn.Module):
    def __init__(self, sharpness: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(20 if i == 0 else 48, 48) for i in range(6))
        self.head, self.sharpness = nn.Linear(48, 4), sharpness
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=1.5 / layer.in_features**0.5)
            nn.init.constant_(layer.bias, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        potential, rate = [x.new_zeros(len(x), 48)] * 6, 0.0
        for t in range(x.shape[1]):
            s = x[:, t]
            for i, layer in enumerate(self.layers):
                potential[i] = 0.9 * potential[i] + layer(s)
                s = Spike.apply(potential[i] - 1, self.sharpness)
                potential[i] = potential[i] * (1 - s.detach())
            rate = rate + s / x.shape[1]
        return self.head(rate)


def test_depth_of_a_network_that_also_runs_over_time() -> None:
    frames = (noise(16, 5, 20) > 0).float()
    finding = found(SpikingNet(60.0), frames)["SD101"]
    assert finding.severity == "error" and "(u > 0)" in source(finding)
    assert not found(SpikingNet(1.0), frames)


class Refined(nn.Module):
    def __init__(self, feedback: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.context, self.drive = nn.Linear(12, 32), nn.Linear(32, 32)
        self.read, self.feedback = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 2)), feedback

    def forward(self, x: Tensor) -> Tensor:
        context = torch.tanh(self.context(x))
        state = torch.zeros_like(context)
        for _ in range(24):
            state = state + 0.4 * (self.feedback * state + torch.tanh(self.drive(context)))
        return self.read(state)


@pytest.mark.parametrize("feedback", [1.0, -1.0])
def test_a_state_that_is_refined_in_a_loop_has_no_depth(feedback: float) -> None:
    assert "SD203" not in found(Refined(feedback), noise(32, 12))


class Seeded(nn.Module):
    """A recurrence whose first state comes from an encoder."""

    def __init__(self, cell: type[nn.RNNBase], last: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encode, self.cell, self.head = nn.Linear(20, 32), cell(8, 32, batch_first=True), nn.Linear(32, 4)
        self.last = last

    def forward(self, context: Tensor, sequence: Tensor) -> Tensor:
        state = torch.tanh(self.encode(context))[None]
        start = (state, torch.zeros_like(state)) if isinstance(self.cell, nn.LSTM) else state
        states, _ = self.cell(sequence, start)
        return self.head(states[:, -1] if self.last else states.mean(1))


@pytest.mark.parametrize("cell", [nn.RNN, nn.GRU, nn.LSTM])
def test_an_encoder_that_reaches_the_loss_through_a_long_recurrence_only(cell: type[nn.RNNBase]) -> None:
    finding = found(Seeded(cell, last=True), noise(16, 20), noise(16, 60, 8))["SD101"]
    assert finding.severity == "error" and "self.cell(sequence, start)" in source(finding)
    assert not found(Seeded(cell, last=False), noise(16, 20), noise(16, 60, 8))
    assert "error" not in {f.severity for f in found(Seeded(cell, last=True), noise(16, 20), noise(16, 12, 8)).values()}


class Critic(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers: list[nn.Module] = [spectral_norm(nn.Linear(12, 40)), nn.LeakyReLU(0.2)]
        for _ in range(depth):
            layers += [spectral_norm(nn.Linear(40, 40)), nn.LeakyReLU(0.2)]
        self.body, self.score = nn.Sequential(*layers), nn.Linear(40, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.score(self.body(x))


def hinge(scores: Tensor) -> Tensor:
    real, fake = scores.chunk(2)
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def test_a_bias_whose_gradients_cancel_is_not_stuck() -> None:
    assert not found(Critic(2), noise(32, 12), loss=hinge)
    assert set(found(Critic(16), noise(32, 12), loss=hinge)) == {"SD101"}


class Plain(nn.Module):
    """Layers without normalisation around which a residual connection may lead."""

    def __init__(self, step: Callable[[nn.Module, Tensor], Tensor], depth: int = 18) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head, self.step = nn.Linear(16, 32), nn.Linear(32, 4), step
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = self.step(layer, x)
        return self.head(x)


def squashed(layer: nn.Module, x: Tensor) -> Tensor:
    return torch.sigmoid(layer(x))


def halved(layer: nn.Module, x: Tensor) -> Tensor:
    total = x + 0.3 * torch.tanh(layer(x))
    return total / 2


def contracted(layer: nn.Module, x: Tensor) -> Tensor:
    return torch.tanh(layer(x))


@pytest.mark.parametrize(
    ("step", "line", "cause"),
    [
        (squashed, "torch.sigmoid(layer(x))", "`sigmoid` keeps"),
        (halved, "total / 2", "`div` keeps 0.5"),
        (contracted, "", "weights have std·√fan_in = 0.58"),  # built outside of the scan: there is no line
    ],
)
def test_the_line_that_loses_most_of_the_gradient_is_told(step: Callable, line: str, cause: str) -> None:
    finding = found(Plain(step), noise(32, 16))["SD101"]
    assert finding.severity == "error"
    assert line in source(finding) and cause in finding.notes[0]
    assert finding.module == "" or finding.module.startswith("layers.")


def test_a_residual_stream_of_small_branches_is_left_alone() -> None:
    assert not found(Plain(lambda layer, x: x + 0.3 * torch.tanh(layer(x))), noise(32, 16))


@pytest.mark.parametrize(("gain", "severity"), [(1.65, "warning"), (2.5, "error")])
def test_deep_linear_maps_that_expand(gain: float, severity: str) -> None:
    model = Plain(lambda layer, x: layer(x), depth=12)
    for layer in model.layers:
        nn.init.orthogonal_(layer.weight, gain)
    assert found(model, noise(32, 16))["SD102"].severity == severity
    for layer in model.layers:
        nn.init.orthogonal_(layer.weight)
    assert not found(model, noise(32, 16))


class ByHand(nn.Module):
    """A gated recurrence written out, read at its last step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.z, self.r, self.n = (nn.Linear(6 + 32, 32) for _ in range(3))
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 32)
        for now in x.unbind(1):
            both = torch.cat([now, h], 1)
            z, r = torch.sigmoid(self.z(both)), torch.sigmoid(self.r(both))
            h = z * h + (1 - z) * torch.tanh(self.n(torch.cat([now, r * h], 1)))
        return self.head(h)


def test_steps_of_a_gated_recurrence_by_hand_are_not_layers() -> None:
    assert not found(ByHand(), noise(16, 24, 6), loss=lambda y: F.cross_entropy(y, torch.arange(16) % 3))
