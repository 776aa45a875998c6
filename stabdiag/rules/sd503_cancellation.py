"""A difference of nearly equal numbers cancels the digits that were right, and what is left is rounding error.

## What it does
Reported is the difference at which the instability index of SD501 jumps, when it cancels log2((|a|+|b|)/|a−b|) bits (root
mean squares): more than half of the format's significand of p bits (24, 11, 8), and when its error reaches the outputs or
becomes NaN, as the square root of a variance that came out negative. Centring, residual differences and the shift of a
softmax cancel as many bits without making an error, since their operands are exact; there the index does not jump.

## Why it matters
A variance as E[x²] − E[x]² at mean 5,000 and spread 1 has no right digit in float32; distances as |a|² + |b|² − 2ab go
negative.

## Bad
```python
import torch
from torch import nn


class Prototypes(nn.Module):
    def __init__(self):
        super().__init__()
        self.centre = nn.Parameter(100 + torch.randn(10, 3))
        self.out = nn.Linear(10, 2)

    def forward(self, x):
        squares = (x**2).sum(-1, keepdim=True) + (self.centre**2).sum(-1)
        distance = squares - 2 * x @ self.centre.T  # expect: SD503
        return self.out(torch.exp(-distance))


def build_model():
    torch.manual_seed(0)
    return Prototypes()


def example_inputs():
    return (100 + torch.randn(32, 3, generator=torch.Generator().manual_seed(0)),)


def loss(output):
    return output.square().mean()
```

## Good
```python
import torch
from torch import nn


class Prototypes(nn.Module):
    def __init__(self):
        super().__init__()
        self.centre = nn.Parameter(100 + torch.randn(10, 3))
        self.out = nn.Linear(10, 2)

    def forward(self, x):
        distance = (x[:, None] - self.centre).square().sum(-1)
        return self.out(torch.exp(-distance))


def build_model():
    torch.manual_seed(0)
    return Prototypes()


def example_inputs():
    return (100 + torch.randn(32, 3, generator=torch.Generator().manual_seed(0)),)


def loss(output):
    return output.square().mean()
```

## What it does not detect
Cancellation inside one op (a sum or a product of many terms of mixed sign): SD501 reports it when it costs digits. Data whose
offset the format cannot hold in the first place: that error is there before the model begins, and the verdict of the
precision says so.

## Thresholds
- `index` = 8: instability index of the result from which the difference counts, times 4 in float32; see SD501.
- `output_error` = 0.1: relative error of the outputs, or of the loss where those are right, from which it is an error; also
  where more than p − 2 bits cancel, and where the result becomes NaN.
- `float32_error` = 2^-8: likewise in float32, where results are worse than bfloat16 could hold.

## References
- Higham 2002, Accuracy and Stability of Numerical Algorithms, 1.7 (cancellation) and 1.9 (sample variance).
- Chan, Golub, LeVeque 1983, Algorithms for Computing the Sample Variance, The American Statistician 37(3).
- PyTorch issue 37154: gradients of `cdist` by expansion.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.graph.main_path import downstream
from stabdiag.evidence.numbers.blame import LIMIT, Blame, blamed_runs
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Op, Run, Trace
from stabdiag.trace.formats import format_of

KIND = "expression"
LEVEL = "line"
BLOCKS = True
REMEDIES = (
    *("centre-first", "direct-difference", "float32-island", "float64-island", "guarded-root", "small-argument"),
    *("standardise-data", "two-pass-variance"),
)


def check(
    trace: Trace, *, index: float = LIMIT, output_error: float = 0.1, float32_error: float = 2.0**-8
) -> Iterator[Finding]:
    """One finding per run whose error a cancelling difference makes."""
    for run, blamed in blamed_runs(trace, index):
        format = format_of(run.precision)
        if blamed.cancels(format):
            lost = float32_error if format.name == "float32" else output_error
            bad = blamed.fatal or blamed.bits > format.digits - 2 or (blamed.result or 0.0) > lost
            yield _finding(trace, run, blamed, Severity.ERROR if bad else Severity.WARNING)


def _finding(trace: Trace, run: Run, blamed: Blame, severity: Severity) -> Finding:
    op, digits = blamed.op, format_of(run.precision).digits
    return Finding(
        severity,
        f"{blamed.bits:.0f} of {digits} bits cancel in this difference in {run.precision}: "
        f"its relative error is {blamed.error:.2g}"
        f", its operands' {blamed.inherited:.1g}; {blamed.outcome}",
        module=op.module or op.layer,
        op=op.name,
        precisions=[run.precision],
        location=trace.place(op),
        label=f"{blamed.bits:.0f} of {digits} bits cancel",
        evidence={
            "op_index": op.index,
            "bits": blamed.bits,
            "index": blamed.index,
            "error": blamed.error,
            "inherited": blamed.inherited,
            "output_error": blamed.result,
            "reaches": downstream(run, op.index),
        },
        fixes=list(_fixes(blamed, run)),
    )


def _fixes(blamed: Blame, run: Run) -> Iterator[Fix]:
    before = {op.name for op in ancestors(run, blamed.op, 4)}
    if before & {"mm", "bmm", "addmm", "baddbmm"}:
        yield Fix("direct-difference", "take the difference of the points, not of the squares")
    if before & {"mean", "sum"}:
        yield Fix("centre-first", "subtract the mean before squaring")
    if run.precision != "float32":
        yield Fix("float32-island", "compute the difference in float32")
    yield Fix("float64-island", "compute the difference in float64")


def ancestors(run: Run, op: Op, steps: int) -> list[Op]:
    """The ops that an op's operands were made by, at most so many steps back."""
    found: list[Op] = []
    edge = [op]
    for _ in range(steps):
        edge = [p for o in edge for v in o.inputs if (p := run.producer(run.behind_views(v))) is not None]
        found += edge
    return found
