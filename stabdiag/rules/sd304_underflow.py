"""Numbers that are not zero become zero in the format, and something is lost with them.

## What it does
Two cases, both against the reference run. The result of an op loses a share of its non-zero elements (below half the format's
smallest number, 2^-25 in float16) and is at the same time the op that makes the error of the outputs, found as in SD501. Or a
term of the loss is flushed to zero as a whole while the sum it goes into survives: it trains nothing and shows nowhere.

## Why it matters
A regulariser weighted 1e-7 is exactly 0 in float16: its line in the log reads 0.0 and nobody looks.

## Bad
```python
import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(x)


def build_model():
    torch.manual_seed(0)
    return Model()


def example_inputs():
    return (torch.randn(8, 8, generator=torch.Generator().manual_seed(0)),)


def loss(output):
    fit = (output - 1).square().mean()
    return fit + 1e-8 * output.abs().mean()  # expect: SD304
```

## Good
```python
import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(x)


def build_model():
    torch.manual_seed(0)
    return Model()


def example_inputs():
    return (torch.randn(8, 8, generator=torch.Generator().manual_seed(0)),)


def loss(output):
    fit = (output - 1).square().mean()
    return fit + 1e-2 * output.abs().mean()
```

## What it does not detect
Underflow that costs nothing: tails of an activation, masked or tiny probabilities (SD401), scores that a softmax levels. Of
31 healthy architectures 7 flush more than 1 % of a tensor in float16 and none of them loses anything by it. Gradients are
SD104.

## Thresholds
- `warning` = 0.01: share of the non-zero elements that become 0.
- `error` = 0.2: share from which it is an error, where the outputs suffer; what becomes NaN or infinite always is.

## References
- Micikevicius et al. 2018, Mixed Precision Training, arXiv:1710.03740, 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from stabdiag.evidence.graph.main_path import downstream, is_live
from stabdiag.evidence.numbers.blame import LIMIT, blamed_runs
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Op, Run, Trace, Value
from stabdiag.trace.counterpart import Counterparts, reference_of
from stabdiag.trace.formats import FORMATS

KIND = "range"
LEVEL = "op"
BLOCKS = True
REMEDIES = ("float32-island", "float32-loss", "log-softmax", "sum-of-logs")
explains = ("SD301", "SD501")


def check(trace: Trace, *, warning: float = 0.01, error: float = 0.2) -> Iterator[Finding]:
    """Underflow that makes the error of a run, then loss terms that vanish."""
    reference = reference_of(trace)
    if reference is None:
        return
    for run, blamed in blamed_runs(trace, LIMIT):
        there = Counterparts(run, reference)
        lost = _lost(run, blamed.op, there)
        if lost is not None and lost > warning:
            severity = Severity.ERROR if lost > error or blamed.fatal else Severity.WARNING
            message = f"{lost:.0%} of what `{blamed.op.name}` makes is 0 in {run.precision} and not in the reference"
            yield _finding(trace, run, blamed.op, severity, f"{message}; {blamed.outcome}", lost)
    for run in trace.runs:
        if run.precision not in ("float64", "float32") and not run.step and not run.seed:
            yield from _terms(trace, run, Counterparts(run, reference))


def _lost(run: Run, op: Op, there: Counterparts) -> float | None:
    """Share of the reference's non-zero elements that are below half the format's smallest number."""
    value = run.output_of(op)
    other = there.value(run, op.outputs[0]) if op.outputs else None
    if value is None or other is None or other.stats is None or value.dtype not in FORMATS:
        return None
    share = other.stats.underflow(FORMATS[value.dtype])
    return share if isfinite(share) else None


def _terms(trace: Trace, run: Run, there: Counterparts) -> Iterator[Finding]:
    """Scalars of the loss that are zero as a whole and were not."""
    for op in run.phase("loss"):
        value = run.output_of(op)
        if value is None or value.shape != () or value.stats is None or value.stats.max_abs or value.stats.nonfinite:
            continue
        if op.view or not is_live(run, op.index) or not all(_alive(v) for v in run.inputs_of(op) if v.stats is not None):
            continue
        other = there.value(run, op.outputs[0])
        if other is None or other.stats is None or not other.stats.max_abs or (_lost(run, op, there) or 0.0) < 1.0:
            continue
        sums = [o for o in run.consumers(op.outputs[0]) if o.name in ("add", "sub") and o.phase == "loss"]
        if any((v := run.output_of(o)) is not None and _alive(v) for o in sums):
            message = f"this term of the loss is {other.stats.max_abs:.2g} in the reference and 0 in {run.precision}"
            yield _finding(trace, run, op, Severity.WARNING, message, 1.0)


def _alive(value: Value) -> bool:
    return value.stats is not None and value.stats.max_abs > 0


def _finding(trace: Trace, run: Run, op: Op, severity: Severity, message: str, lost: float) -> Finding:
    return Finding(
        severity,
        message,
        module=op.module or op.layer,
        op=op.name,
        precisions=[run.precision],
        location=trace.place(op),
        label=f"{lost:.0%} underflows",
        evidence={"op_index": op.index, "share": lost, "reaches": [op.index, *downstream(run, op.index)]},
        fixes=[
            Fix("float32-island", "compute it in float32"),
            Fix("loss-scaling", "scale the loss before it is computed in float16"),
        ],
    )
