"""A small result computed as the difference of large numbers.

## What it does
Finds log(1 + x), exp(x) - 1 and 1 - cos(x) of data by value flow, and takes the typical magnitude of x (its root mean square):
the 1 keeps u = 2^-24 of absolute precision, so the relative error is u/|x|, for the cosine 2u/x².

Warning: that is at least `lost`.

## Why it matters
At x = 1e-7 the sum 1 + x is 1.0000001 or 1: the result is wrong by half or is 0, and so is everything computed from it.

## Bad
```python
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Linear(8, 4)


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)


def loss(z):
    rate = 1e-4 * torch.sigmoid(z)
    return 1e3 * torch.log(1 + rate).mean()  # expect: SD611
```

## Good
```python
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Linear(8, 4)


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)


def loss(z):
    rate = 1e-4 * torch.sigmoid(z)
    return 1e3 * torch.log1p(rate).mean()
```

## What it does not detect
The same in a narrower format only: SD501 measures it there.

## Thresholds
- `lost` = 1e-3: relative error in float32 that is a warning.

## References
- Goldberg 1991, "What every computer scientist should know about floating-point arithmetic", section 1.4 (log1p).
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Op, Trace
from stabdiag.trace.dependence import Dependence, dependence
from stabdiag.trace.formats import FORMATS

KIND = "expression"
LEVEL = "line"
REMEDIES = ("small-argument", "softplus")
explains = ("SD503",)


def check(trace: Trace, *, lost: float = 1e-3) -> Iterator[Finding]:
    """One finding per line."""
    run = trace.run("float32")
    if run is None:
        return
    roundoff = FORMATS["float32"].unit_roundoff
    seen = set()
    for op in run.phase("forward", "loss"):
        form = _form(dependence(run), op)
        if form is None or op.location is None or (key := (op.location.path, op.location.line)) in seen:
            continue
        name, x = form
        stats = run.values[dependence(run).behind(x)].stats
        if stats is None or not stats.sampled or stats.nonfinite or not stats.rms > 0:
            continue
        error = 2 * roundoff / stats.rms**2 if name.startswith("1 - cos") else roundoff / stats.rms
        if error < lost:
            continue
        seen.add(key)
        yield Finding(
            Severity.WARNING,
            f"`{name}` of values around {stats.rms:.2g}: the relative error is {min(error, 1.0):.1g} in float32",
            **at(op),
            precisions=[name for name in trace.precisions if name != "float64"],
            label="the 1 swallows the digits",
            evidence={"op_index": op.index, "rms": stats.rms, "relative_error": error},
            fixes=[Fix("small-argument", "use the function made for small arguments")],
        )


def _form(values: Dependence, op: Op) -> tuple[str, int] | None:
    """The form and the id of x."""
    name = op.name
    inner = values.maker(op.inputs[0]) if op.inputs and values.data(op.inputs[0]) else None
    if inner is None or not inner.inputs:
        return None
    if name == "log" and inner.name == "add" and inner.attributes.get("other") == 1:
        return "log(1 + x)", inner.inputs[0]
    minus_one = (name == "sub" and op.attributes.get("other") == 1) or (name == "add" and op.attributes.get("other") == -1)
    if minus_one and inner.name == "exp":
        return "exp(x) - 1", inner.inputs[0]
    if name == "rsub" and op.attributes.get("other") == 1 and inner.name == "cos":
        return "1 - cos(x)", inner.inputs[0]
    return None
