"""What rounding costs the descent of small-batch networks: `python -m benchmarks.descent [--seeds N]`, a Markdown table.

Batches of 4 random pictures of 32×32 pixels with random labels, the hardest that healthy networks with batch normalisation are
probed with. For each 16-bit precision: the error of the gradient, what a step along it descends by to first order beside the
exact one, how much of its slope the exact gradient descends by over one step of training, and the verdict.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stabdiag.evidence.numbers.descent import descent_of
from stabdiag.probe.runner import probe
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.subject import Inputs, Subject
from stabdiag.trace import SubjectFacts

PRECISIONS = ["float32", "float16", "bfloat16"]


def conv(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution and its batch normalisation."""
    return [
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
    ]


class Residual(nn.Module):
    """x + f(x), or s(x) + f(x) where shapes differ."""

    def __init__(self, branch: list[nn.Module], shortcut: list[nn.Module] | None = None, relu: bool = False) -> None:
        super().__init__()
        self.branch, self.shortcut = nn.Sequential(*branch), nn.Sequential(*(shortcut or [nn.Identity()]))
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.shortcut(x) + self.branch(x)
        return F.relu(y) if self.relu else y


class Concatenated(nn.Module):
    """Branches side by side along the channels."""

    def __init__(self, *branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Sequential(*branch) for branch in branches])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def classifier(body: list[nn.Module], channels: int) -> nn.Module:
    """A body with average pooling and ten classes."""
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def bottleneck(channels: int, width: int, stride: int) -> nn.Module:
    """The block of ResNet-50."""
    branch = [*conv(channels, width, 1), nn.ReLU(), *conv(width, width, 3, stride), nn.ReLU(), *conv(width, 4 * width, 1)]
    return Residual(branch, None if stride == 1 else conv(channels, 4 * width, 1, stride), relu=True)


def resnet(blocks: int) -> nn.Module:
    """Bottleneck blocks down to one pixel."""
    body = [*conv(3, 16, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), bottleneck(16, 16, 2), bottleneck(64, 32, 2)]
    body += [bottleneck(128, 64, 2), *(bottleneck(256, 64, 1) for _ in range(blocks))]
    return classifier(body, 256)


def convmixer(blocks: int, width: int = 32) -> nn.Module:
    """Depthwise and pointwise convolutions over 4×4 patches."""
    body: list[nn.Module] = [nn.Conv2d(3, width, 8, 8), nn.GELU(), nn.BatchNorm2d(width)]
    for _ in range(blocks):
        across = [nn.Conv2d(width, width, 5, padding=2, groups=width), nn.GELU(), nn.BatchNorm2d(width)]
        body += [Residual(across), nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width)]
    return classifier(body, width)


def inception(blocks: int, width: int = 8) -> nn.Module:
    """Four branches of different reach."""

    def block(channels: int) -> nn.Module:
        one, act = conv(channels, width, 1), nn.ReLU()
        three = [*conv(channels, width, 1), act, *conv(width, width, 3), act]
        five = [*conv(channels, width, 1), act, *conv(width, width, 3), act, *conv(width, width, 3), act]
        return Concatenated([*one, act], three, five, [nn.MaxPool2d(3, 1, 1), *conv(channels, width, 1), act])

    body: list[nn.Module] = [*conv(3, 16, 3, 2), nn.ReLU(), block(16)]
    for k in range(blocks):
        body += [block(4 * width), *([nn.MaxPool2d(2)] if k % (blocks // 3) == 0 else [])]
    return classifier(body, 4 * width)


def mobilenet() -> nn.Module:
    """Inverted residuals."""

    def block(channels: int, out: int, stride: int) -> nn.Module:
        wide = 4 * channels
        branch = [*conv(channels, wide, 1), nn.ReLU6(), *conv(wide, wide, 3, stride, wide), nn.ReLU6(), *conv(wide, out, 1)]
        return Residual(branch) if stride == 1 and channels == out else nn.Sequential(*branch)

    shape = [(16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1)]
    return classifier([*conv(3, 16, 3, 2), nn.ReLU6(), *(block(*s) for s in shape)], 64)


def perceptron(layers: int, normalised: bool) -> nn.Module:
    """Fully connected layers, with batch statistics over 4 samples or without."""
    body: list[nn.Module] = [nn.Flatten(), nn.Linear(3072, 64)]
    for _ in range(layers):
        body += [nn.Linear(64, 64), *([nn.BatchNorm1d(64), nn.ReLU()] if normalised else [nn.Tanh()])]
    return nn.Sequential(*body, nn.Linear(64, 10))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "ResNet, 6 bottlenecks": lambda: resnet(3),
    "ResNet, 9 bottlenecks": lambda: resnet(6),
    "ConvMixer, 8 blocks": lambda: convmixer(8),
    "ConvMixer, 20 blocks": lambda: convmixer(20),
    "Inception, 6 blocks": lambda: inception(6),
    "Inception, 12 blocks": lambda: inception(12),
    "MobileNet": mobilenet,
    "BatchNorm perceptron, 8 layers": lambda: perceptron(8, normalised=True),
    "BatchNorm perceptron, 20 layers": lambda: perceptron(20, normalised=True),
    "tanh perceptron, 6 layers": lambda: perceptron(6, normalised=False),
}


def subject_of(name: str, seed: int) -> Subject:
    """A model with its batch."""
    torch.manual_seed(seed)
    model = MODELS[name]()
    pictures, labels = torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4,))
    facts = SubjectFacts("descent.py", name, 0, "", "")
    return Subject(model, lambda k: Inputs((pictures,)), lambda out, _: F.cross_entropy(out, labels), facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    columns = ["model", "seed", "precision", "gradient error", "first order", "of the slope", "outcome"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in MODELS:
        for seed in range(options.seeds):
            trace = probe(subject_of(name, seed), ScanRequest("descent.py", precisions=PRECISIONS, batches=1, seeds=1))
            found = trace.experiments.descent
            share = f"{found.actual / found.predicted:.2f}" if found else ""
            for run in trace.runs:
                descent = descent_of(trace, run) if not run.step else None
                if descent is not None:
                    first = f"{descent.error:.2g} | {run.gradient_projection:.2f}"
                    print(f"| {name} | {seed} | {run.precision} | {first} | {share} | {descent.outcome.value} |", flush=True)


if __name__ == "__main__":
    main()
