"""Variance as mean of squares minus square of the mean.

## What it does
Finds E[x²] - E[x]² by value flow and compares the mean square with the variance of the float64 run: the relative error of the
result is u · E[x²] / Var[x], with u the unit roundoff.

Error: that is at least `wrong` in float32 or a probed precision. Warning: at least `doubtful` in float32. Information: the
form, on data whose mean does not matter.

## Why it matters
At an offset of 100 spreads, float32 keeps three digits of the variance, float16 none; beyond 4096 spreads float32 keeps
none and the variance may come out negative, and its root NaN.

## Bad
```python
import torch
from torch import nn


class Normalise(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        variance = (x * x).mean(1, keepdim=True) - mean * mean  # expect: SD609
        return self.fc((x - mean) / torch.sqrt(variance.clamp(min=0) + 1e-3))


def build_model():
    torch.manual_seed(0)
    return Normalise()


def example_inputs():
    return (300 + torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)
```

## Good
```python
import torch
from torch import nn


class Normalise(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        variance = x.var(1, keepdim=True, correction=0)
        return self.fc((x - mean) / torch.sqrt(variance + 1e-3))


def build_model():
    torch.manual_seed(0)
    return Normalise()


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)
```

## What it does not detect
Covariances and squared distances by the same expansion: SD503 measures their cancellation.

## Thresholds
- `wrong` = 0.1: relative error of the variance that is an error.
- `doubtful` = 1e-4: relative error in float32 that is a warning; mean/spread = 41.

## References
- Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", The American Statistician 37.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Op, Run, Trace
from stabdiag.trace.dependence import Dependence, dependence
from stabdiag.trace.formats import format_of

KIND = "expression"
LEVEL = "line"
REMEDIES = ("centre-first", "float32-island", "float64-island", "standardise-data", "two-pass-variance")
explains = ("SD503", "SD606", "SD608")


def check(trace: Trace, *, wrong: float = 0.1, doubtful: float = 1e-4) -> Iterator[Finding]:
    """One finding per line that computes a variance this way."""
    run = trace.run("float32")
    if run is None:
        return
    seen = set()
    for op in run.phase("forward", "loss"):
        mean = _mean_of_naive_variance(run, dependence(run), op)
        if mean is None or op.location is None or (key := (op.location.path, op.location.line)) in seen:
            continue
        ratio = _offset_ratio(trace, run, op)
        if ratio is None:
            continue
        seen.add(key)
        errors = {p: format_of(p).unit_roundoff * ratio for p in trace.precisions if p != "float64"}
        bad = [p for p, error in errors.items() if error >= wrong]
        single = errors.get("float32", 0.0)
        severity = Severity.ERROR if bad else Severity.WARNING if single >= doubtful else Severity.INFO
        yield Finding(
            severity,
            f"variance as mean of squares minus square of the mean: the mean square is {ratio:.3g} times the variance, so "
            f"{_told(errors)}",
            **at(op),
            precisions=bad or ["float32"],
            label=f"{ratio:.3g} times larger terms cancel",
            evidence={
                "op_index": op.index,
                "ratio": ratio,
                "relative_error": errors,
                "reaches": sorted(
                    {op.index, *dependence(run).downstream(op, 4)}
                ),  # a negative variance breaks the root behind it
            },
            fixes=[
                Fix("two-pass-variance", "let torch compute it in two passes"),
                Fix("centre-first", "subtract the mean before squaring"),
            ],
        )


def _told(errors: dict[str, float]) -> str:
    return "its relative error is " + ", ".join(f"{error:.1g} in {p}" for p, error in errors.items())


def _mean_of_naive_variance(run: Run, values: Dependence, op: Op) -> Op | None:
    """The op that takes the mean, where `op` subtracts its square from the mean of squares."""
    if op.name != "sub" or len(op.inputs) != 2 or not values.data(op.inputs[0]):
        return None
    squares, mean_squared = values.maker(op.inputs[0]), _squared(values, op.inputs[1])
    if squares is None or squares.name != "mean" or mean_squared is None:
        return None
    inner, mean = _squared(values, squares.inputs[0]), values.maker(mean_squared)
    if inner is None or mean is None or mean.name != "mean":
        return None
    return mean if values.behind(mean.inputs[0]) == values.behind(inner) else None


def _squared(values: Dependence, value_id: int) -> int | None:
    """What a value is the square of."""
    op = values.maker(value_id)
    if op is None:
        return None
    if op.name == "pow" and op.attributes.get("exponent") == 2:
        return op.inputs[0]
    if op.name == "mul" and len(op.inputs) == 2 and values.behind(op.inputs[0]) == values.behind(op.inputs[1]):
        return op.inputs[0]
    return None


def _offset_ratio(trace: Trace, run: Run, op: Op) -> float | None:
    """E[x²]/Var[x], from the float64 run where there is one."""
    wide = trace.run("float64")
    same = wide is not None and op.index < len(wide.ops) and wide.ops[op.index].name == op.name
    of = wide if wide is not None and same else run
    squares, variance = of.values[of.ops[op.index].inputs[0]].stats, of.values[of.ops[op.index].outputs[0]].stats
    if squares is None or variance is None or not variance.sampled or not variance.max_abs:
        return None
    return abs(squares.mean) / abs(variance.mean) if variance.mean else None
