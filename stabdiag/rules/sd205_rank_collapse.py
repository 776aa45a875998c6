"""Samples or tokens that become the same with depth.

## What it does
Takes a fixed sample of rows (samples or tokens, at most 64) at every station of the way of the signal (as SD203) and measures
how much of it tells rows apart: res(X) = ‖X − 1x̄ᵀ − σuvᵀ‖ / ‖X‖, what lies beside the mean row and the one direction in which
rows differ most (Dong et al. take the mean alone; rows of a deep rectified net, and nodes averaged over their neighbours, also
collapse onto one line, spread along it by their size). An error needs res to fall by `error_decades` from the first station to
the last, a warning by `warning_decades`, and half of that must remain without the largest single drop, which is a bottleneck.

Rows may also coincide in clusters (all tokens of a sample alike, samples apart). That is the distance to the nearest neighbour
after centring, d = mean_i min_j |x_i - x_j|² / mean |x_i - x_j|²: an error when it falls to `error_distance` of its value at
the first station, with `spread_decades` decades of the fall left without the largest single drop.

Two thirds of the limits must also be kept with every other seed and after two optimizer steps. Rows that are near each other
to begin with (d below `apart`: samples along a curve) are not judged.

## Why it matters
A head cannot tell apart what arrives as the same vector. Self-attention without residual connections and MLPs converges to
identical tokens doubly exponentially with depth.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.MultiheadAttention(16, 2, batch_first=True) for _ in range(8))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x, x, x)[0]  # expect: SD205
        return self.head(x)


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(1)),)


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
        self.layers = nn.ModuleList(nn.MultiheadAttention(16, 2, batch_first=True) for _ in range(8))
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x, x, x)[0]
        return self.head(x)


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return output.square().mean()
```

## What it does not detect
Inputs whose rows are alike to begin with, ways with fewer than `least_stations` measured stations or fewer than 32 rows, and
collapse inside residual branches. Convolutional maps are judged by one position of every sample: neighbouring positions see
the same pixels. Embeddings that are copied (learned queries repeated for every sample) drop once and are not called a collapse.

## Thresholds
- `error_decades` = 2, `warning_decades` = 1: fall of res. 15 healthy transformers at most 0.43, mostly below 0.05; plain
  rectified networks with He initialisation reach 1 after 20 layers of width 32, 40 of width 256, and stall in training at
  60 (1.6); 20 graph convolutions without residual connections 2 to 6.
- `error_distance` = 1e-4. 66 healthy models (`benchmarks/detection/thresholds.py`): median 0.8, smallest 0.005; attention
  without residual connections reaches 1e-10 in three layers. `spread_decades` = 2.
- `apart` = 0.05: nearest neighbour at the first station. 64 points along a curve 0.004; random rows 0.3 to 0.7.
- `kept` = 2/3: sixty rectified layers fall by 1.60 as built, by 1.26 after two steps.
- `least_stations` = 4.

## References
Dong, Cordonnier & Loukas 2021, Attention is not all you need (arXiv:2103.03404); Noci et al. 2022, Signal Propagation in
Transformers (arXiv:2206.03126).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import isfinite, log10
from typing import Any, Literal

from stabdiag.evidence.graph.author_line import line_of_op
from stabdiag.evidence.graph.main_path import Station
from stabdiag.evidence.measure.units import rows_of
from stabdiag.evidence.signal.path import signal_path
from stabdiag.evidence.signal.units import probed
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.rule import Measurement
from stabdiag.trace import Op, Run, Trace

KIND = "activation"
LEVEL = "model"
REMEDIES = ("replace-activation-function", "residual")

ROWS, COLUMNS, LEAST_ROWS, SQUARINGS = 64, 64, 32, 6
FLOOR = 1e-12  # of d in float32, and of r²: below it only rounding is left
STATION_OPS = ("mm", "addmm", "baddbmm", "bmm", "convolution", "embedding", "add", "cat", "stack", "mul")


def rank_facts(inputs: list[Any], output: Any, unit_dim: int | None, attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """How parallel a sample of rows is and how near its nearest neighbours are; None below 32 rows or 8 units."""
    if unit_dim is None or output.shape[unit_dim] < 8 or output.numel() < LEAST_ROWS * output.shape[unit_dim]:
        return None
    x = output.detach()
    if x.dim() > 3 and unit_dim == 1:  # neighbouring positions of a convolution see the same pixels: one of each sample
        x = x[(slice(None), slice(None), *(size // 2 for size in x.shape[2:]))]
    x = rows_of(x, unit_dim, ROWS)
    x = x[:, :: -(-x.shape[1] // COLUMNS)].double()
    n = x.shape[0]
    if n < LEAST_ROWS / 2:
        return None
    gram = x @ x.T
    whole = gram.diagonal().sum()
    if not bool(whole > 0):
        return None
    gram = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
    norms = gram.diagonal()
    total = norms.sum().clamp(min=1e-300)
    power = gram / total
    for _ in range(SQUARINGS):
        power = power @ power
        power = power / power.diagonal().sum().clamp(min=1e-300)
    leading = power[:, power.diagonal().argmax()]
    along = leading @ gram @ leading / (leading @ leading).clamp(min=1e-300)
    apart = norms + norms[:, None] - 2 * gram
    nearest = (apart + apart.new_full((n,), float("inf")).diag().nan_to_num(0.0, float("inf"))).amin(1).clamp(min=0).mean()
    return {
        "measured": 1,
        "rows": output.numel() / output.shape[unit_dim],
        "beside": ((total - along) / whole).clamp(min=FLOOR).log10() / 2,
        "nearest": nearest * (n - 1) / (2 * total),
    }


def _forward(run: Run, op: Op) -> bool:
    return op.phase == "forward"


MEASUREMENTS = (Measurement("rank", STATION_OPS, rank_facts, where=_forward, reads_inputs=False),)


def check(
    trace: Trace,
    *,
    error_distance: float = 1e-4,
    spread_decades: float = 2.0,
    error_decades: float = 2.0,
    warning_decades: float = 1.0,
    least_stations: int = 4,
    apart: float = 0.05,
    kept: float = 2 / 3,
) -> Iterator[Finding]:
    """Judge the way of the signal in the model as built, of other seeds and after two steps."""

    def judge(path: list[tuple[Station, dict[str, float]]], share: float = 1.0) -> Severity | None:
        if len(path) < least_stations or path[0][1]["nearest"] < apart:
            return None
        beside = [fact["beside"] for _, fact in path]
        distances = [log10(max(fact["nearest"], FLOOR)) for _, fact in path]
        nearer = distances[0] - distances[-1]
        if nearer > -share * log10(error_distance) and lost(distances) >= share * spread_decades:
            return Severity.ERROR
        for decades, severity in ((error_decades, Severity.ERROR), (warning_decades, Severity.WARNING)):
            if beside[0] - beside[-1] >= share * decades and lost(beside) >= share * decades / 2:
                return severity
        return None

    run = trace.run("float32")
    path = ranks(run) if run is not None else []
    severity = judge(path)
    if severity is None:
        return

    def still(other: Run) -> Severity | Literal[False] | None:
        there = ranks(other)
        return (judge(there, kept) or False) if there else None

    first, last = path[0][1], path[-1][1]
    parallel = [10 ** fact["beside"] for _, fact in path]
    fact, text = "beside", f"{parallel[0]:.2g} of the signal lies beside one direction at the first layer, {parallel[-1]:.2g}"
    if first["beside"] - last["beside"] < warning_decades:
        fact, text = (
            "nearest",
            f"nearest neighbour at {first['nearest']:.2g} of the mean at the first layer, {last['nearest']:.2g}",
        )
    course = [f["beside"] if fact == "beside" else log10(max(f["nearest"], FLOOR)) for _, f in path]
    op = path[next(i for i, v in enumerate(course) if 2 * (course[0] - v) >= course[0] - course[-1])][0].op
    yield Finding(
        severity,
        f"rows become alike with depth: {text} at the last of {len(path)}",
        precisions=probed(trace),
        label="rows are alike from here on",
        still=still,
        evidence={
            "nearest": [measured["nearest"] for _, measured in path],
            "beside_one_direction": [round(v, 8) for v in parallel],
            "op_index": op.index,
        },
        fixes=[
            Fix("residual", "carry the signal past every layer"),
            Fix("replace-activation", "follow every mixing layer by an MLP with a residual connection"),
        ],
        **at(op) | {"location": op.location or line_of_op(trace, op), "module": op.layer or op.module},
    )


def lost(logs: list[float]) -> float:
    """Decades lost without the largest single drop, which is a bottleneck or a recurrent state that its biases still rule."""
    steps = [b - a for a, b in pairwise(logs)]
    return min(steps) - sum(steps)


def ranks(run: Run) -> list[tuple[Station, dict[str, float]]]:
    """The measured stations of the way with their facts averaged over calls and batches, those with finite facts."""
    found = []
    for station in signal_path(run):
        facts = station.op.facts.get("rank")
        if facts is None:
            continue
        mean = {name: value / facts["measured"] for name, value in facts.items()}
        if all(isfinite(v) for v in mean.values()):
            found.append((station, mean))
    return found
