"""Samples or tokens that become the same with depth.

## What it does
Takes a fixed sample of rows (samples or tokens, at most 64) at every station of the main path and measures, after centring,
how far a row is from its nearest neighbour: d = mean_i min_j |x_i - x_j|² / mean |x_i - x_j|², and the effective rank
(Σλ)²/Σλ² of the covariance, which is 1 when all rows lie on a line and never below the stable rank Σλ/max λ. d falls to 0
when rows coincide in clusters (all tokens of a sample alike) as well as when they all lie on a line. An error needs d below
`error_distance` times its value at the first station at the end of the path, reached over several layers: without the largest
single drop, `spread_decades` decades must remain. So does an effective rank below `rank` where the first station's is above
twice that, with half as many decades of distance, or as many of (rank - 1) or of both, lost over several layers: nodes of a
graph that is averaged over and over come to lie on one line through the origin, spread along it by their degree, so that
neighbours stay apart. So does the share of the squares that rows have of their own, Σ|x_i - x̄|² / Σ|x_i|², below `own_share`
where it began above 0.01, lost over several layers like d: whatever the distances among them, they are one vector. (Where the
gradient too fades by two decades, the biases drown the signal of each row for itself, and SD101 tells that.)

A warning needs a mean pairwise cosine above `cosine` at the end where it was below 0.5 at first, and an effective rank below 2.

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
Inputs whose rows are alike to begin with, paths with fewer than `least_stations` measured stations or fewer than `least_rows`
rows, and collapse inside residual branches or of convolutional maps (neighbouring positions see the same pixels). Embeddings
that are copied (learned queries repeated for every sample) drop once and are not called a collapse.

## Thresholds
- `error_distance` = 1e-4. 66 healthy models (`benchmarks/detection/thresholds.py`): median 0.8, smallest 0.005; attention
  without residual connections reaches 1e-10 in three layers.
- `spread_decades` = 2.0: decades of d that remain without the largest single drop; half of it for every other verdict.
- `rank` = 1.05: effective rank.
- `own_share` = 2^-22, the square of float16's unit roundoff: no 16-bit format tells the rows apart. 26 healthy models 0.06 to
  0.93 at the last layer; 16 layers of graph convolutions without residual connections 1e-12.
- `cosine` = 0.98.
- `least_stations` = 4, `least_rows` = 32.

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
from stabdiag.evidence.graph.main_path import Station, main_path
from stabdiag.evidence.measure.units import rows_of
from stabdiag.evidence.signal.depth import over_depth
from stabdiag.evidence.signal.units import probed
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.rule import Measurement
from stabdiag.trace import Op, Run, Trace

KIND = "activation"
LEVEL = "model"
REMEDIES = ("replace-activation-function", "residual")

ROWS = 64
FLOOR = 1e-12  # of d in float32: below it only rounding is left
FADED = -2.0  # decades of the gradient over depth from which SD101 tells that the signal fades under the biases
STATION_OPS = ("mm", "addmm", "baddbmm", "bmm", "convolution", "embedding", "add", "cat")


def rank_facts(inputs: list[Any], output: Any, unit_dim: int | None, attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Mean cosine, effective rank and nearest-neighbour distance of a sample of rows; None below 32 rows or 8 units."""
    if unit_dim is None or output.shape[unit_dim] < 8 or output.numel() < 32 * output.shape[unit_dim]:
        return None
    if output.dim() > 3 and unit_dim == 1:  # neighbouring positions of a convolution see the same pixels: alike by design
        return None
    x = rows_of(output.detach(), unit_dim, ROWS)
    x = x[:, :: max(1, x.shape[1] // ROWS)].double()
    n = x.shape[0]
    if n < 16:
        return None
    unit = x / x.norm(dim=1, keepdim=True).clamp(min=1e-300)
    cosine = (unit.sum(0).square().sum() - n) / (n * (n - 1))
    whole = x.square().sum()
    x = x - x.mean(0)
    gram = x @ x.T
    norms = gram.diagonal()
    total = norms.sum()
    apart = norms + norms[:, None] - 2 * gram
    nearest = (apart + apart.new_full((n,), float("inf")).diag().nan_to_num(0.0, float("inf"))).amin(1).clamp(min=0).mean()
    return {
        "measured": 1,
        "rows": output.numel() / output.shape[unit_dim],
        "cosine": cosine,
        "rank": total.square() / gram.square().sum(),
        "nearest": nearest * (n - 1) / (2 * total),
        "own": total / whole,
    }


def _forward(run: Run, op: Op) -> bool:
    return op.phase == "forward"


MEASUREMENTS = (Measurement("rank", STATION_OPS, rank_facts, where=_forward, reads_inputs=False),)


def check(
    trace: Trace,
    *,
    error_distance: float = 1e-4,
    spread_decades: float = 2.0,
    rank: float = 1.05,
    own_share: float = 2.0**-22,
    cosine: float = 0.98,
    least_stations: int = 4,
    least_rows: int = 32,
) -> Iterator[Finding]:
    """Judge the main path of the model as built, of other seeds and after two steps."""

    def judge(path: list[tuple[Station, dict[str, float]]]) -> Severity | None:
        if len(path) < least_stations or path[0][1]["rows"] < least_rows:
            return None
        first, last = path[0][1], path[-1][1]
        distances = [max(fact["nearest"], FLOOR) for _, fact in path]
        nearer, flatter = lost(distances), lost([max(fact["rank"] - 1, FLOOR) for _, fact in path])
        if first["nearest"] > 0.05 and distances[-1] < error_distance * distances[0] and nearer >= spread_decades:
            return Severity.ERROR
        gradual = nearer >= spread_decades / 2 or flatter + max(nearer, 0.0) >= spread_decades
        if last["rank"] < rank and first["rank"] > 2 * rank and gradual:
            return Severity.ERROR
        own = [max(fact["own"], FLOOR) for _, fact in path]
        if own[0] > 0.01 and own[-1] < own_share and lost(own) >= spread_decades and not fades:
            return Severity.ERROR
        alike = last["cosine"] > cosine and first["cosine"] < 0.5 and last["rank"] < 2 < first["rank"]
        return Severity.WARNING if alike and nearer >= spread_decades / 2 else None

    run = trace.run("float32")
    course = over_depth(run) if run is not None else None
    fades = course is not None and course.decades < FADED
    path = ranks(run) if run is not None else []
    severity = judge(path)
    if severity is None:
        return

    def still(other: Run) -> Severity | Literal[False] | None:
        there = ranks(other)
        return (severity if judge(there) else False) if there else None

    first, last = path[0][1], path[-1][1]
    fact, said = "nearest", "nearest neighbour at {:.2g} of the mean at the first layer, {:.2g} at the last"
    if last["own"] < own_share:
        fact, said = "own", "what a row has of its own is {:.2g} of its square at the first layer, {:.2g} at the last"
    start = next((s for s, measured in path[1:] if measured[fact] < 0.03 * first[fact]), path[-1][0])
    op = start.op
    yield Finding(
        severity,
        f"rows become alike with depth: {said.format(first[fact], last[fact])} of {len(path)}, "
        f"effective rank {first['rank']:.3g} and {last['rank']:.3g}",
        precisions=probed(trace),
        label="rows are alike from here on",
        still=still,
        evidence={
            "nearest": [measured["nearest"] for _, measured in path],
            "effective_rank": [round(measured["rank"], 3) for _, measured in path],
            "cosine": [round(measured["cosine"], 4) for _, measured in path],
            "op_index": op.index,
        },
        fixes=[
            Fix("residual", "carry the signal past every layer"),
            Fix("replace-activation", "follow every mixing layer by an MLP with a residual connection"),
        ],
        **at(op) | {"location": op.location or line_of_op(trace, op), "module": op.layer or op.module},
    )


def lost(values: list[float]) -> float:
    """Decades lost without the largest single drop, which is a bottleneck or a recurrent state that its biases still rule."""
    steps = [log10(b / a) for a, b in pairwise(values)]
    return min(steps) - sum(steps)


def ranks(run: Run) -> list[tuple[Station, dict[str, float]]]:
    """The measured stations of the main path with their facts averaged over calls and batches, those with finite facts."""
    found = []
    for station in main_path(run):
        facts = station.op.facts.get("rank")
        if facts is None:
            continue
        mean = {name: value / facts["measured"] for name, value in facts.items()}
        if all(isfinite(v) for v in mean.values()):
            found.append((station, mean))
    return found
