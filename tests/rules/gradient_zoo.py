"""Models for the gradient and initialisation rules: healthy ones that look ill, and ill ones in many styles.

Each is a function of (seed, width, batch) that gives a Case; the tests ask for verdicts that do not depend on these, and
`benchmarks/detection/thresholds.py` prints what all of them measure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stabdiag.probe.runner import probe
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.subject import Inputs, Subject
from stabdiag.trace import SubjectFacts, Trace


@dataclass
class Case:
    """A model to be probed.

    Attributes:
        build: makes the model; inputs: positional; loss: of the output.
        codes: one of these must be reported (empty for a healthy model); warns: codes that may be warnings on a healthy one.
    """

    build: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    loss: Callable[[Any], Tensor] = field(default=lambda out: F.cross_entropy(out, torch.arange(len(out)) % out.shape[-1]))
    codes: tuple[str, ...] = ()
    warns: tuple[str, ...] = ()


Maker = Callable[[int, int, int], Case]
HEALTHY: dict[str, Maker] = {}
DEFECTIVE: dict[str, Maker] = {}


def probed(case: Case) -> Trace:
    """Probe a live case; it can be rebuilt with other seeds."""

    def rebuild(k: int) -> nn.Module:
        torch.manual_seed(1000 + k)
        with torch.random.fork_rng():
            return case.build().train()

    facts = SubjectFacts("model.py", "Net", 0, "", "", declared=["inputs", "loss"], rebuildable=True)
    subject = Subject(
        case.build().train(), lambda k: Inputs(case.inputs), lambda out, _: case.loss(out), facts, rebuild=rebuild
    )
    return probe(subject, ScanRequest("model.py", precisions=["float32", "float16"]))


def healthy(make: Maker) -> Maker:
    HEALTHY[make.__name__] = make
    return make


def defective(make: Maker) -> Maker:
    DEFECTIVE[make.__name__] = make
    return make


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 1))


def seeded(seed: int, make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(seed)
        return make()

    return build


def mlp(
    width: int, depth: int, between: Callable[[], list[nn.Module]], init: Callable[[Tensor], Any] | None = None
) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(16, width)]
    for _ in range(depth):
        layers += [*between(), nn.Linear(width, width)]
    net = nn.Sequential(*layers, *between(), nn.Linear(width, 4))
    if init is not None:
        for layer in net:
            if isinstance(layer, nn.Linear):
                init(layer.weight)
                nn.init.zeros_(layer.bias)
    return net


def convolutions(width: int, depth: int, norm: bool, init: Callable[[Tensor], Any] | None = None, stride: int = 1) -> nn.Module:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers.append(nn.Conv2d(3 if i == 0 else width, width, 3, stride if i % 3 == 2 else 1, 1))
        layers += [nn.BatchNorm2d(width)] if norm else []
        layers.append(nn.ReLU())
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4))
    if init is not None:
        for layer in net:
            if isinstance(layer, nn.Conv2d):
                init(layer.weight)
    return net


class Lambda(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Residual(nn.Module):
    """x + scale * branch(norm(x)) a number of times; `scale` None is 1, "gamma" a vector, "zero" a scalar that starts at 0."""

    def __init__(
        self, width: int, depth: int, scale: float | None = None, norm: bool = True, zero: bool = False, gain: float = 1.0
    ):
        super().__init__()
        self.stem, self.head = nn.Linear(16, width), nn.Linear(width, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm else nn.Identity() for _ in range(depth))
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(depth)
        )
        self.scales = (
            nn.ParameterList(nn.Parameter(torch.full((width,), scale)) for _ in range(depth)) if scale is not None else None
        )
        self.final = nn.LayerNorm(width) if norm else nn.Identity()
        for branch in self.branches:
            if zero:
                nn.init.zeros_(branch[2].weight)
            for layer in (branch[0], branch[2]):
                layer.weight.data *= gain

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for i, (norm, branch) in enumerate(zip(self.norms, self.branches, strict=True)):
            y = branch(norm(x))
            x = x + (y if self.scales is None else self.scales[i] * y)
        return self.head(self.final(x))


class Recurrent(nn.Module):
    def __init__(
        self, cell: type[nn.Module], width: int, read: str, init: Callable[[nn.Module], Any] | None = None, **options: Any
    ):
        super().__init__()
        self.cell, self.head, self.read = cell(8, width, batch_first=True, **options), nn.Linear(width, 4), read
        if init is not None:
            init(self.cell)

    def forward(self, x: Tensor) -> Tensor:
        states = self.cell(x)[0]
        return self.head(states[:, -1] if self.read == "last" else states.mean(1))


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.attention, self.head = (
            nn.Linear(16, width),
            nn.MultiheadAttention(width, 2, batch_first=True),
            nn.Linear(width, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head((x + self.attention(x, x, x)[0]).mean(1))


class Experts(nn.Module):
    """Top-1 routing by gathering; with `copied`, all experts start equal."""

    def __init__(self, width: int, copied: bool) -> None:
        super().__init__()
        self.stem, self.router, self.head = nn.Linear(16, width), nn.Linear(width, 8), nn.Linear(width, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)) for _ in range(8)
        )
        if copied:
            for expert in self.experts:
                expert.load_state_dict(self.experts[0].state_dict())
        with torch.no_grad():
            self.router.bias[5:] = -50.0

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        weight, chosen = self.router(x).softmax(-1).max(-1)
        y = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            rows = (chosen == e).nonzero().flatten()
            y = y.index_add(0, rows, weight[rows, None] * expert(x[rows]))
        return self.head(x + y)


# -- healthy ----------------------------------------


@healthy
def he_mlp(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: mlp(width, 12, lambda: [nn.ReLU()], nn.init.kaiming_normal_)), (noise(seed, batch, 16),))


@healthy
def default_mlp(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: mlp(width, 4, lambda: [nn.ReLU()])), (noise(seed, batch, 16),), warns=("SD101",))


@healthy
def xavier_tanh(seed: int, width: int, batch: int) -> Case:
    init = lambda w: nn.init.xavier_normal_(w, gain=1.2)  # noqa: E731
    return Case(seeded(seed, lambda: mlp(width, 10, lambda: [nn.Tanh()], init)), (noise(seed, batch, 16),))


@healthy
def two_sigmoids(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: mlp(width, 1, lambda: [nn.Sigmoid()])), (noise(seed, batch, 16),))


@healthy
def normalised_mlp(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: mlp(width, 12, lambda: [nn.LayerNorm(width), nn.GELU()])), (noise(seed, batch, 16),))


@healthy
def alexnet_like(seed: int, width: int, batch: int) -> Case:
    net = lambda: convolutions(width, 5, norm=False, stride=2)  # noqa: E731
    return Case(seeded(seed, net), (noise(seed, 4, 3, 32, 32),), warns=("SD101", "SD702"))


@healthy
def batchnorm_without_skips(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: convolutions(width, 14, norm=True)), (noise(seed, 8, 3, 16, 16),))


@healthy
def layerscale(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: Residual(width, 12, scale=1e-6)), (noise(seed, batch, 16),))


@healthy
def rezero(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: Residual(width, 8, scale=0.0, norm=False)), (noise(seed, batch, 16),))


@healthy
def zero_branches(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: Residual(width, 8, zero=True)), (noise(seed, batch, 16),))


@healthy
def zero_head(seed: int, width: int, batch: int) -> Case:
    def make() -> nn.Module:
        net = mlp(width, 3, lambda: [nn.LayerNorm(width), nn.ReLU()])
        nn.init.zeros_(net[-1].weight)  # type: ignore[arg-type]
        return net

    return Case(seeded(seed, make), (noise(seed, batch, 16),))


@healthy
def lora(seed: int, width: int, batch: int) -> Case:
    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base, self.head = nn.Linear(16, width), nn.Linear(width, 4)
            self.base.requires_grad_(False)
            self.down, self.up = nn.Linear(16, 4, bias=False), nn.Linear(4, width, bias=False)
            nn.init.zeros_(self.up.weight)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.base(x) + self.up(self.down(x))))

    return Case(seeded(seed, Adapted), (noise(seed, batch, 16),))


@healthy
def zero_logistic(seed: int, width: int, batch: int) -> Case:
    def make() -> nn.Module:
        net = nn.Linear(16, 4)
        nn.init.zeros_(net.weight)
        nn.init.zeros_(net.bias)
        return net

    return Case(seeded(seed, make), (noise(seed, batch, 16),))


@healthy
def zero_linear(seed: int, width: int, batch: int) -> Case:
    def make() -> nn.Module:
        net = nn.Linear(16, 6)
        nn.init.zeros_(net.weight)
        return net

    return Case(seeded(seed, make), (noise(seed, batch, 16),), lambda out: (out - 1).square().mean())


@healthy
def attention(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: Attention(width)), (noise(seed, batch, 7, 16),))


@healthy
def attention_on_one_token(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: Attention(width)), (noise(seed, batch, 1, 16),))


@healthy
def unrouted_experts(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: Experts(width, copied=False)), (noise(seed, batch, 16),))


@healthy
def copied_experts(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: Experts(width, copied=True)), (noise(seed, batch, 16),))


@healthy
def head_without_loss(seed: int, width: int, batch: int) -> Case:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.heads = nn.Linear(16, width), nn.ModuleList(nn.Linear(width, 4) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.stem(x))
            return torch.stack([head(x) for head in self.heads], 1)

    return Case(
        seeded(seed, Two), (noise(seed, batch, 16),), lambda out: F.cross_entropy(out[:, 0], torch.arange(len(out)) % 4)
    )


@healthy
def one_step_recurrence(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: Recurrent(nn.GRU, width, "last")), (noise(seed, batch, 1, 8),))


@healthy
def lstm_last(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: Recurrent(nn.LSTM, width, "last")), (noise(seed, batch, 50, 8),))


@healthy
def gru_last(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: Recurrent(nn.GRU, width, "last")), (noise(seed, batch, 50, 8),))


@healthy
def rnn_last(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: Recurrent(nn.RNN, width, "last")), (noise(seed, batch, 50, 8),), warns=("SD101",))


@healthy
def rnn_mean(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: Recurrent(nn.RNN, width, "mean")), (noise(seed, batch, 50, 8),))


@healthy
def identity_recurrence(seed: int, width: int, batch: int) -> Case:
    init = lambda cell: nn.init.eye_(cell.weight_hh_l0)  # noqa: E731
    make = lambda: Recurrent(nn.RNN, width, "mean", init, nonlinearity="relu")  # noqa: E731
    return Case(seeded(seed, make), (0.1 * noise(seed, batch, 30, 8),))


@healthy
def spectral_discriminator(seed: int, width: int, batch: int) -> Case:
    def make() -> nn.Module:
        sn = nn.utils.parametrizations.spectral_norm
        layers: list[nn.Module] = []
        for i in range(4):
            layers += [sn(nn.Conv2d(3 if i == 0 else width, width, 4, 2, 1)), nn.LeakyReLU(0.2)]
        return nn.Sequential(*layers, nn.Flatten(), sn(nn.Linear(width * 4, 1)))

    return Case(seeded(seed, make), (noise(seed, batch, 3, 32, 32),), lambda out: F.relu(1 - out).mean(), warns=("SD101",))


@healthy
def depthwise_identity(seed: int, width: int, batch: int) -> Case:
    def make() -> nn.Module:
        net = nn.Sequential(
            nn.Conv2d(3, width, 1),
            nn.Conv2d(width, width, 3, 1, 1, groups=width),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(64 * width, 4),
        )
        nn.init.dirac_(net[1].weight, groups=width)  # type: ignore[arg-type]
        return net

    return Case(seeded(seed, make), (noise(seed, batch, 3, 8, 8),))


@healthy
def scalar_features(seed: int, width: int, batch: int) -> Case:
    net = lambda: nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, 4))  # noqa: E731
    return Case(seeded(seed, net), (noise(seed, batch, 1),))


@healthy
def padded_words(seed: int, width: int, batch: int) -> Case:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(200, width, padding_idx=0), nn.Linear(width, 4)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(torch.relu(self.table(ids).mean(1)))

    ids = torch.randint(0, 20, (batch, 6), generator=torch.Generator().manual_seed(seed))
    return Case(seeded(seed, Words), (ids,))


@healthy
def dense_mean_loss(seed: int, width: int, batch: int) -> Case:
    net = lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.SiLU(), nn.Conv2d(8, 3, 3, 1, 1))  # noqa: E731
    return Case(seeded(seed, net), (noise(seed, 2, 3, 64, 64),), lambda out: (out - 1).square().mean())


@healthy
def raw_pixels_normalised_inside(seed: int, width: int, batch: int) -> Case:
    net = lambda: nn.Sequential(nn.BatchNorm2d(3), convolutions(width, 3, norm=True))  # noqa: E731
    pixels = torch.randint(0, 256, (batch, 3, 16, 16), generator=torch.Generator().manual_seed(seed)).float()
    return Case(seeded(seed, net), (pixels,))


@healthy
def heavy_tails(seed: int, width: int, batch: int) -> Case:
    net = lambda: nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 4))  # noqa: E731
    x = noise(seed, batch, 16)
    x[0, 0] = 25.0
    return Case(seeded(seed, net), (x,))


# -- defective ----------------------------------------


@defective
def sigmoid_stack(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: mlp(width, 9, lambda: [nn.Sigmoid()])), (noise(seed, batch, 16),), codes=("SD101",))


@defective
def small_tanh_convolutions(seed: int, width: int, batch: int) -> Case:
    init = lambda w: nn.init.normal_(w, std=0.01)  # noqa: E731
    net = lambda: convolutions(width, 8, norm=False, init=init)  # noqa: E731
    return Case(seeded(seed, net), (noise(seed, 4, 3, 12, 12),), codes=("SD101",))


@defective
def small_uniform_mlp(seed: int, width: int, batch: int) -> Case:
    init = lambda w: nn.init.uniform_(w, -0.03, 0.03)  # noqa: E731
    return Case(seeded(seed, lambda: mlp(width, 7, lambda: [nn.ELU()], init)), (noise(seed, batch, 16),), codes=("SD101",))


@defective
def thirty_spectral_norms(seed: int, width: int, batch: int) -> Case:
    def make() -> nn.Module:
        sn = nn.utils.parametrizations.spectral_norm
        layers: list[nn.Module] = [nn.Linear(16, width)]
        for _ in range(30):
            layers += [nn.ReLU(), sn(nn.Linear(width, width))]
        return nn.Sequential(*layers, nn.ReLU(), nn.Linear(width, 4))

    return Case(seeded(seed, make), (noise(seed, batch, 16),), codes=("SD101",))


class Spike(torch.autograd.Function):
    """A step with a narrow surrogate gradient."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (x,) = context.saved_tensors
        return gradient * 0.05 / (1 + (3 * x).square())


@defective
def narrow_surrogate(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: mlp(width, 7, lambda: [Lambda(Spike.apply)])), (noise(seed, batch, 16),), codes=("SD101",))


@defective
def forgetful_recurrence(seed: int, width: int, batch: int) -> Case:
    init = lambda cell: nn.init.normal_(cell.weight_hh_l0, std=0.1 / width**0.5)  # noqa: E731
    return Case(seeded(seed, lambda: Recurrent(nn.RNN, width, "last", init)), (noise(seed, batch, 40, 8),), codes=("SD101",))


@defective
def unit_variance_mlp(seed: int, width: int, batch: int) -> Case:
    return Case(
        seeded(seed, lambda: mlp(width, 5, lambda: [nn.ReLU()], nn.init.normal_)),
        (noise(seed, batch, 16),),
        lambda out: out.square().mean(),
        codes=("SD102",),
    )


@defective
def oversized_convolutions(seed: int, width: int, batch: int) -> Case:
    init = lambda w: nn.init.normal_(w, std=0.35)  # noqa: E731
    net = lambda: convolutions(width, 10, norm=False, init=init)  # noqa: E731
    return Case(seeded(seed, net), (noise(seed, 4, 3, 12, 12),), codes=("SD102",))


@defective
def growing_stream(seed: int, width: int, batch: int) -> Case:
    return Case(
        seeded(seed, lambda: Residual(width, 14, norm=False, gain=3.0)),
        (noise(seed, batch, 16),),
        lambda out: out.square().mean(),
        codes=("SD102",),
    )


@defective
def expanding_recurrence(seed: int, width: int, batch: int) -> Case:
    init = lambda cell: nn.init.orthogonal_(cell.weight_hh_l0, gain=2.0)  # noqa: E731
    make = lambda: Recurrent(nn.RNN, width, "mean", init, nonlinearity="relu")  # noqa: E731
    return Case(seeded(seed, make), (noise(seed, batch, 60, 8),), lambda out: (out - 1).square().mean(), codes=("SD102",))


@defective
def expanding_loop(seed: int, width: int, batch: int) -> Case:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.again, self.head = nn.Linear(8, width), nn.Parameter(1.7 * torch.eye(width)), nn.Linear(width, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.zeros(len(x), len(self.again))
            for t in range(x.shape[1]):
                h = torch.relu(self.enter(x[:, t]) + h @ self.again)
            return self.head(h)

    return Case(seeded(seed, Loop), (noise(seed, batch, 40, 8),), lambda out: (out - 1).square().mean(), codes=("SD102",))


@defective
def all_zero(seed: int, width: int, batch: int) -> Case:
    return Case(
        seeded(seed, lambda: mlp(width, 1, lambda: [nn.Tanh()], nn.init.zeros_)),
        (noise(seed, batch, 16),),
        codes=("SD701", "SD103"),
    )


@defective
def all_zero_relu(seed: int, width: int, batch: int) -> Case:
    return Case(
        seeded(seed, lambda: mlp(width, 1, lambda: [nn.ReLU()], nn.init.zeros_)),
        (noise(seed, batch, 16),),
        codes=("SD701", "SD103"),
    )


@defective
def constant_units(seed: int, width: int, batch: int) -> Case:
    init = lambda w: nn.init.constant_(w, 0.1)  # noqa: E731
    return Case(seeded(seed, lambda: mlp(width, 2, lambda: [nn.Tanh()], init)), (noise(seed, batch, 16),), codes=("SD701",))


@defective
def constant_gates(seed: int, width: int, batch: int) -> Case:
    def init(cell: nn.Module) -> None:
        for p in cell.parameters():
            nn.init.constant_(p, 0.05)

    return Case(
        seeded(seed, lambda: Recurrent(nn.LSTM, width, "last", init, num_layers=2)),
        (noise(seed, batch, 6, 8),),
        codes=("SD701",),
    )


@defective
def copied_units(seed: int, width: int, batch: int) -> Case:
    def make() -> nn.Module:
        net = nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 4))
        with torch.no_grad():
            half = width // 2
            net[0].weight[half : 2 * half], net[0].bias[half : 2 * half] = net[0].weight[:half], net[0].bias[:half]
            net[2].weight[:, half : 2 * half] = net[2].weight[:, :half]
        return net

    return Case(seeded(seed, make), (noise(seed, batch, 16),), codes=("SD701",))


@defective
def sign_activation(seed: int, width: int, batch: int) -> Case:
    return Case(seeded(seed, lambda: mlp(width, 1, lambda: [Lambda(torch.sign)])), (noise(seed, batch, 16),), codes=("SD103",))


@defective
def dead_layer(seed: int, width: int, batch: int) -> Case:
    def make() -> nn.Module:
        net = mlp(width, 1, lambda: [nn.ReLU()])
        nn.init.constant_(net[2].bias, -20.0)  # type: ignore[arg-type]
        return net

    return Case(seeded(seed, make), (noise(seed, batch, 16),), codes=("SD103", "SD201"))


@defective
def gated_shut(seed: int, width: int, batch: int) -> Case:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(16, width), nn.Linear(width, width), nn.Linear(width, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.b(torch.tanh(self.a(x))).clamp(5.0, 6.0))

    return Case(seeded(seed, Gated), (noise(seed, batch, 16),), codes=("SD103",))


@defective
def tiny_loss(seed: int, width: int, batch: int) -> Case:
    net = lambda: mlp(width, 2, lambda: [nn.GELU()])  # noqa: E731
    return Case(seeded(seed, net), (noise(seed, batch, 16),), lambda out: 1e-8 * out.square().mean(), codes=("SD104",))


@defective
def tiny_branch(seed: int, width: int, batch: int) -> Case:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.side = nn.Linear(16, 4), mlp(width, 2, lambda: [nn.GELU()])

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.main(x), self.side(x)

    return Case(
        seeded(seed, Branches),
        (noise(seed, batch, 16),),
        lambda out: out[0].square().mean() + 3e-9 * out[1].square().mean(),
        codes=("SD104",),
    )


@defective
def raw_pixels(seed: int, width: int, batch: int) -> Case:
    pixels = torch.randint(0, 256, (batch, 3, 16, 16), generator=torch.Generator().manual_seed(seed)).float()
    return Case(seeded(seed, lambda: convolutions(width, 3, norm=False)), (pixels,), codes=("SD703",))


@defective
def unscaled_table(seed: int, width: int, batch: int) -> Case:
    x = noise(seed, batch, 16) * torch.logspace(0, 5, 16)
    return Case(seeded(seed, lambda: mlp(width, 1, lambda: [nn.Tanh()])), (x,), codes=("SD703",))
