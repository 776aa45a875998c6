"""Activations that grow or shrink exponentially with depth.

## What it does
Fits a line to log10 of the variance of the signal at the stations of its way (one per layer, or per residual block) against
their order: the median slope over all pairs (Theil-Sen), so that one outlier does not bend it. The way leads from the loss
backwards, at every op to the input that carries most of the gradient; layers that run again and again with the same weights
are time and count once. The drift is slope · stations. A warning needs |slope| above `slope` decades per station and a drift
above `warning_decades`, an error a drift above `error_decades`. The second half of the way must drift on in the same direction
at `sustained` of the slope or more: a residual stream adds up, its variance grows linearly and its logarithm flattens; growth
that compounds does not. The order must explain `explained` of how the logarithm varies along the way (its squared
correlation): a signal that falls and rises again drifts nowhere. Two thirds of these limits must also be kept with every other
seed and after two optimizer steps.

## Why it matters
Twelve more layers and the signal leaves the format's range, or the last layers see only biases. Gradients drift with it.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(14))
        self.head = nn.Linear(32, 1)
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight, gain=2.6)  # expect: SD203

    def forward(self, x):
        for layer in self.layers:
            x = nn.functional.relu(layer(x))
        return self.head(x)


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 32, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return output.square().mean()
```

## Good
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(14))
        self.head = nn.Linear(32, 1)
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight, gain=2.0 ** 0.5)

    def forward(self, x):
        for layer in self.layers:
            x = nn.functional.relu(layer(x))
        return self.head(x)


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 32, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return output.square().mean()
```

## What it does not detect
Ways of fewer than `least_stations` stations (SD102, SD303 and SD304 judge sizes there), drift inside residual branches, along
connections that skip most layers where these carry most of the gradient (dense networks, the long skips of a U-Net), and over
time steps (SD101, SD102).

## Thresholds
- `slope` = 0.15: decades of variance per station, the same as SD101's for gradients.
- `warning_decades` = 3.0, `error_decades` = 6.0: over the whole path. 69 healthy models
  (`benchmarks/detection/thresholds.py`): median 0.01, 75 % 0.5, largest 1.3, of 42 more 3.3 in one whose stream nothing
  normalises; defective ones 11 to 17. One healthy model drifts by 62 decades as built (a weight scale of 0.02 in front of
  normalisations with an epsilon of 1e-3) and recovers within two steps.
- `sustained` = 0.5: slope of the second half over the whole slope. 1.0 for compounding growth; 0.15 at 16 stations of a
  residual stream.
- `explained` = 0.5. Compounding growth and decay 0.95 to 1; a path through embeddings, convolutions and pools of their own
  scales 0.3.
- `least_stations` = 8.
- `kept` = 2/3: thirty Xavier layers in front of ReLU drift by -8.6 decades as built, by -3.9 after two steps of AdamW, whose
  biases then carry what is left.

## References
He et al. 2015 (arXiv:1502.01852); De & Smith 2020, Batch Normalization Biases Residual Blocks Towards the Identity Function
(arXiv:2002.10444); Xiong et al. 2020 (arXiv:2002.04745); Sen 1968 (slope).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import log10
from statistics import correlation, median
from typing import Literal

from stabdiag.evidence.graph.author_line import line_of_op, line_of_weight
from stabdiag.evidence.graph.main_path import Station
from stabdiag.evidence.signal.initialisation import LayerScale, layer_scales, remedy
from stabdiag.evidence.signal.path import signal_path
from stabdiag.evidence.signal.units import probed
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Run, Trace

KIND = "activation"
LEVEL = "model"
REMEDIES = (
    *("batch-norm", "final-norm", "instance-norm", "kaiming-init", "layer-norm", "rms-norm", "scale-branches"),
    *("xavier-init", "zero-init-branch"),
)
explains = ("SD705",)

MOST = 200  # stations that enter the fit


@dataclass(frozen=True)
class Drift:
    """log10 variance along the way of the signal.

    Attributes:
        stations, logs: the fitted part of the way; slope: decades per station; later: slope of its second half; explained:
            share of the variation of `logs` that goes with their order.
    """

    stations: list[Station]
    logs: list[float]
    slope: float
    later: float
    explained: float

    @property
    def decades(self) -> float:
        """Drift over the whole way."""
        return self.slope * (len(self.logs) - 1)


def check(
    trace: Trace,
    *,
    slope: float = 0.15,
    warning_decades: float = 3.0,
    error_decades: float = 6.0,
    sustained: float = 0.5,
    explained: float = 0.5,
    least_stations: int = 8,
    kept: float = 2 / 3,
) -> Iterator[Finding]:
    """Judge the way of the signal in the model as built, of other seeds and after two steps."""

    def compounds(drift: Drift, share: float = 1.0) -> bool:
        return (
            len(drift.logs) >= least_stations
            and abs(drift.slope) > share * slope
            and abs(drift.decades) > share * warning_decades
            and drift.later / drift.slope >= share * sustained
            and drift.explained >= share * explained
        )

    def still(other: Run, severity: Severity) -> Severity | Literal[False] | None:
        there = drift_of(signal_path(other))
        return None if there is None else severity if compounds(there, kept) else False

    run = trace.run("float32")
    if run is None:
        return
    drift = drift_of(signal_path(run))
    if drift is not None and compounds(drift):
        finding = _finding(trace, run, drift, warning_decades, error_decades)
        finding.still = partial(still, severity=finding.severity)
        yield finding


def _finding(trace: Trace, run: Run, drift: Drift, warning_decades: float, error_decades: float) -> Finding:
    scale = _cause(run, drift)
    op = drift.stations[len(drift.stations) // 2].op
    grows = drift.slope > 0
    notes, fixes = [], []
    if scale is not None:
        notes.append(
            f"cause: `{scale.parameter.name}` has std·√fan_in = {scale.gain:.3g} where {scale.wanted:.2g} keeps the variance"
        )
        fixes.append(remedy(scale.nonlinearity))
    fixes.append(Fix("scale-branches", "scale residual branches by 1/√(2N)"))
    fixes.append(Fix("layer-norm", "normalise once per block"))
    name = op.layer or op.module
    first, last = (10 ** (v / 2) for v in (drift.logs[0], drift.logs[-1]))
    return Finding(
        Severity.ERROR if abs(drift.decades) > error_decades else Severity.WARNING,
        f"activations {'grow' if grows else 'shrink'} {10 ** abs(drift.slope / 2):.2g} times per layer over {len(drift.logs)}: "
        f"spread {first:.2g} at the first, {last:.2g} at the last",
        precisions=probed(trace),
        label=f"{drift.slope:+.2f} decades of variance per layer",
        notes=notes,
        evidence={
            "decades": drift.decades,
            "whole_model": drift.decades > 0,
            "decades_per_station": drift.slope,
            "second_half": drift.later,
            "log10_variance": [round(v, 3) for v in drift.logs],
            "op_index": op.index,
            "reaches": _behind(run, drift, warning_decades),
        },
        fixes=fixes,
        **at(op)
        | {"location": line_of_op(trace, op) if scale is None else line_of_weight(trace, scale.parameter), "module": name},
    )


def _behind(run: Run, drift: Drift, decades: float) -> list[int]:
    """The forward ops behind the station where growth has passed `decades`: what overflows there is its consequence."""
    far = next((s.op.index for s, v in zip(drift.stations, drift.logs, strict=True) if v - drift.logs[0] > decades), None)
    return [] if far is None else [op.index for op in run.phase("forward", "loss") if op.index >= far]


def drift_of(path: list[Station]) -> Drift | None:
    """The drift along a way, its last station (the head) left out; None with fewer than four measured stations."""
    stations = [s for s in path[:-1] if s.forward is not None and not s.forward.nonfinite and s.forward.std > 0]
    stations = stations[:: -(-len(stations) // MOST) or 1]
    if len(stations) < 4:
        return None
    logs = [2 * log10(s.forward.std) for s in stations if s.forward is not None]
    explained = correlation(range(len(logs)), logs) ** 2 if min(logs) < max(logs) else 0.0
    return Drift(stations, logs, theil_sen(logs), theil_sen(logs[len(logs) // 2 :]), explained)


def theil_sen(values: list[float]) -> float:
    """Median slope over all pairs."""
    return median((values[j] - values[i]) / (j - i) for i, j in combinations(range(len(values)), 2))


def _cause(run: Run, drift: Drift) -> LayerScale | None:
    """The weight on the path whose scale is furthest off in the direction of the drift, where it is off by a third or more."""
    names = {layer for station in drift.stations for layer in station.layers}
    sign = 1 if drift.slope > 0 else -1
    scales = [
        s for s in layer_scales(run) if s.parameter.module in names and s.gain > 0 and sign * log10(s.ratio) > log10(4 / 3)
    ]
    return max(scales, key=lambda s: sign * log10(s.ratio), default=None)
