"""Most layers are initialised far from the scale that their nonlinearity needs, and the signal pays for it.

## What it does
For every layer, gain = rms(W)·√fan_in, compared with the gain that the next nonlinearity wants: √2 for ReLU, 5/3 for tanh,
1.5 for GELU, 1.7 for SiLU, 1 for sigmoid and where none follows. Warning when the ratio lies outside [1/3, 3] in more than
half of the layers that no normalisation follows *and* the loss gradient changes over depth by two decades or more, at 0.10
decades per layer or more, in the direction that such weights explain; two thirds of the two decades must remain without its
largest single step, and half of the slope in the median step. Weights off scale in a network that carries its signal are
nobody's trouble: silent.

## Why it matters
A factor of 3 per layer is five orders of magnitude in ten layers. This finding names the line that wrote the weights; SD101
and SD102 say what it does to the gradient.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(8))
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=0.02)  # expect: SD702

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(16, 32, generator=torch.Generator().manual_seed(1)),)


def loss(out):
    return (out - 1).square().mean()
```

## Good
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(8))
        for layer in self.layers:
            nn.init.xavier_normal_(layer.weight, gain=5 / 3)

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(16, 32, generator=torch.Generator().manual_seed(1)),)


def loss(out):
    return (out - 1).square().mean()
```

## What it does not detect
Layers of a normalised or residual network, whatever their scale; recurrent weights, whose spectral radius counts (SD101,
SD102).

## Thresholds
- `factor` = 3: how far from the wanted gain is off. PyTorch's default has gain 0.58: 0.41 of ReLU's, 0.35 of tanh's.
- `share` = 0.5: of the layers that must be off.
- `decades` = 2 and `slope` = 0.10: change of the gradient over depth, in all and per layer.

## References
Glorot & Bengio 2010; He et al. 2015 (arXiv:1502.01852); Mishkin & Matas 2016 (arXiv:1511.06422).
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from stabdiag.evidence.graph.author_line import line_of_weight
from stabdiag.evidence.signal.depth import FIRST_TO_LAST, LEAST_LAYERS, most_precise, over_depth
from stabdiag.evidence.signal.initialisation import LayerScale, layer_scales, remedy
from stabdiag.evidence.signal.units import probed
from stabdiag.finding import Finding, Severity
from stabdiag.trace import Location, Trace

KIND = "start"
LEVEL = "layer"
REMEDIES = ("kaiming-init", "orthogonal-init", "xavier-init")
FACT = FIRST_TO_LAST


def check(
    trace: Trace, *, factor: float = 3.0, share: float = 0.5, decades: float = 2.0, slope: float = 0.10
) -> Iterator[Finding]:
    """One finding per line that wrote weights off scale."""
    run = most_precise(trace)
    course = over_depth(run) if run is not None else None
    if run is None or course is None or len(course.norms) < LEAST_LAYERS:
        return
    small = course.decades < 0
    compounds = (-course.spread_decades if small else course.spread_decades) >= decades * 2 / 3
    steady = (course.typical_step if small else -course.typical_step) >= slope / 2
    if abs(course.decades) < decades or abs(course.slope) < slope or not (compounds and steady):
        return
    scales = [s for s in layer_scales(run) if not s.normalised]
    off = [s for s in scales if (s.ratio < 1 / factor if small else s.ratio > factor)]
    if not off or len(off) <= share * len(scales):
        return
    lines: dict[Location | None, list[LayerScale]] = {}
    for scale in off:
        lines.setdefault(line_of_weight(trace, scale.parameter), []).append(scale)
    for location, here in lines.items():
        first, gain = here[0], median(s.gain for s in here)
        wanted = first.nonlinearity.rstrip("_") or "a linear layer"
        yield Finding(
            Severity.WARNING,
            f"{len(here)} of {len(scales)} layers have rms(W)·√fan_in = {gain:.2g} where {wanted} wants {first.wanted:.2f}",
            module=first.parameter.module,
            op=first.op.name,
            precisions=probed(trace),
            location=location,
            label=f"{median(s.ratio for s in here):.2g} of the scale that is needed",
            notes=[f"evidence: the gradient changes by {course.slope:+.2f} decades per layer towards the loss"],
            evidence={
                "gain": gain,
                "wanted": first.wanted,
                "parameters": [s.parameter.name for s in here],
                "decades": round(course.decades, 3),
            },
            fixes=[remedy(first.nonlinearity)],
        )
