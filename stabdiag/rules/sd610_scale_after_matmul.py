"""Attention scores scaled after the matrix product instead of before it.

## What it does
Finds matrix products of two activations whose result is only multiplied or divided by a constant that makes it smaller, and
compares the product in float32 with the largest float16 number.

Error: the product exceeds 65504. Warning: fewer than `headroom` bits are left. Only where float16 is probed.

## Why it matters
The scaled scores fit into float16, the product before the scaling does not: (q @ kᵀ) / √d overflows where (q / √d) @ kᵀ does
not, and both are the same function.

## Bad
```python
import torch
from torch import nn


class Scores(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(16, 64), nn.Linear(16, 64)
        nn.init.normal_(self.q.weight, std=15.0)
        nn.init.normal_(self.k.weight, std=15.0)

    def forward(self, x):
        scores = (self.q(x) @ self.k(x).transpose(-2, -1)) / 8.0  # expect: SD610
        return torch.tanh(scores * 1e-4)


def build_model():
    torch.manual_seed(0)
    return Scores()


def example_inputs():
    return (torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1)),)
```

## Good
```python
import torch
from torch import nn


class Scores(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(16, 64), nn.Linear(16, 64)

    def forward(self, x):
        scores = (self.q(x) / 8.0) @ self.k(x).transpose(-2, -1)
        return torch.tanh(scores)


def build_model():
    torch.manual_seed(0)
    return Scores()


def example_inputs():
    return (torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1)),)
```

## What it does not detect
Products that would overflow scaled as well: SD302.

## Thresholds
- `headroom` = 2 bits below 65504: a factor 4. Untrained attention has 10 to 15 bits.

## References
- Vaswani et al. 2017, "Attention is all you need", section 3.2.1 (the scale).
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Op, Run, Trace
from stabdiag.trace.dependence import Dependence, dependence
from stabdiag.trace.formats import FORMATS

KIND = "expression"
LEVEL = "line"
BLOCKS = True
REMEDIES = ("scale-before",)
explains = ("SD404",)

_PRODUCTS = ("mm", "bmm", "baddbmm")


def check(trace: Trace, *, headroom: float = 2.0) -> Iterator[Finding]:
    """One finding per line."""
    run = trace.run("float32")
    half = [p for p in trace.precisions if p.endswith("float16") and "bfloat" not in p]
    if run is None or not half:
        return
    largest = FORMATS["float16"].max
    worst: dict[object, tuple[float, Op, float]] = {}
    for op in run.phase("forward", "loss"):
        scale = _scale_behind(run, dependence(run), op)
        stats = run.values[op.outputs[0]].stats if scale is not None else None
        if scale is None or stats is None or op.location is None or stats.headroom(FORMATS["float16"]) >= headroom:
            continue
        key = (op.location.path, op.location.line)
        if stats.max_abs * scale < largest and (key not in worst or stats.max_abs > worst[key][0]):
            worst[key] = (stats.max_abs, op, scale)
    for magnitude, op, scale in worst.values():
        overflows = magnitude > largest
        yield Finding(
            Severity.ERROR if overflows else Severity.WARNING,
            f"the product reaches {magnitude:.3g} before it is scaled by {scale:.3g}; float16 ends at {largest:.0f}",
            **at(op),
            precisions=half,
            label=f"{magnitude:.3g} here, {magnitude * scale:.3g} when scaled",
            evidence={"op_index": op.index, "max_abs": magnitude, "scale": scale},
            fixes=[Fix("scale-before", "scale one factor before the product")],
        )


def _scale_behind(run: Run, values: Dependence, op: Op) -> float | None:
    """The constant below 1 that the only use of a product of activations multiplies it with."""
    if op.name not in _PRODUCTS or len(op.inputs) < 2 or values.free(op):
        return None
    if not all(values.data(i) for i in op.inputs[-2:]):
        return None
    uses = list(values.uses(op.outputs[0]))
    if len(uses) != 1 or uses[0].name not in ("mul", "div"):
        return None
    scale = _constant(run, values, uses[0])
    if scale is None or not scale:
        return None
    scale = abs(scale if uses[0].name == "mul" else 1 / scale)
    return scale if scale < 1 else None


def _constant(run: Run, values: Dependence, op: Op) -> float | None:
    other = op.attributes.get("other")
    if isinstance(other, (int, float)):
        return float(other)
    fixed = [i for i in op.inputs if not values.data(i)]
    stats = run.values[values.behind(fixed[0])].stats if len(fixed) == 1 and len(op.inputs) == 2 else None
    return stats.max if stats is not None and stats.min == stats.max else None
