"""A result that is finite in the reference run exceeds the range of the format, and it matters.

## What it does
Reported is the first op whose result overflows although its inputs fit: measured, where the precision ran and the infinity
reaches the loss, an output or a gradient, or is healed into a wrong number (an RMSNorm whose squares overflow returns zeros
and no NaN); predicted from the reference run, where max|y| > the format's largest value, the value depends on data or
weights, it is on a path to the loss, and no consumer saturates there anyway (a score of -70,000 before a softmax is 0 either
way). In units of the format's largest value: float16 65,504, float32 and bfloat16 3.4e38, E4M3 448, E5M2 57,344.

## Why it matters
Squares above 255.9 and exponentials above 11.09 leave float16. The infinity becomes NaN in the next subtraction, or a silent
zero in the next division.

## Bad
```python
import torch
from torch import nn


class Scores(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key = nn.Linear(64, 64), nn.Linear(64, 64)
        nn.init.normal_(self.query.weight, std=20.0)
        nn.init.normal_(self.key.weight, std=20.0)

    def forward(self, x):
        scores = self.query(x) @ self.key(x).transpose(1, 2)  # expect: SD302
        return (scores / 64**0.5).softmax(-1) @ x


def build_model():
    torch.manual_seed(0)
    return Scores()


def example_inputs():
    return (torch.randn(2, 8, 64, generator=torch.Generator().manual_seed(0)),)


def loss(output):
    return output.square().mean()
```

## Good
```python
import torch
from torch import nn


class Scores(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x):
        scores = (self.query(x) / 64**0.5) @ self.key(x).transpose(1, 2)
        return scores.softmax(-1) @ x


def build_model():
    torch.manual_seed(0)
    return Scores()


def example_inputs():
    return (torch.randn(2, 8, 64, generator=torch.Generator().manual_seed(0)),)


def loss(output):
    return output.square().mean()
```

## What it does not detect
Overflow at other data or later in training: SD303 gives the distance. Overflow of scaled gradients is SD105.

## Thresholds
None: the limit is the format's largest value. Of about 200 healthy models 38 have a value above 65,504 somewhere (masks,
sentinels, discarded branches), none of which changes a result: that is why the outcome decides and not the value.

## References
- IEEE 754-2019, 7.4 Overflow.
- Micikevicius et al. 2018, Mixed Precision Training, arXiv:1710.03740.
- Micikevicius et al. 2022, FP8 Formats for Deep Learning, arXiv:2209.05433, Table 1.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.numbers.poison import Birth, harmful, healed_wrong, named, overflowed
from stabdiag.evidence.numbers.prediction import overflows
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Op, Run, Trace
from stabdiag.trace.counterpart import Counterparts, reference_of
from stabdiag.trace.formats import Format, format_of

KIND = "range"
LEVEL = "op"
BLOCKS = True
REMEDIES = (
    *("centre-first", "clamp-before-cast", "clamp-exponent", "direct-difference", "dtype-minimum", "final-norm"),
    *("float32-island", "float32-loss", "kaiming-init", "layer-norm", "logsumexp", "orthogonal-init"),
    *("qk-norm-function", "rms-norm", "scale-before", "scale-branches", "sigmoid", "slogdet", "small-output-init"),
    *("soft-cap", "softmax", "softplus", "spectral-norm", "standardise-data", "standardise-input", "sum-of-logs"),
    *("two-pass-variance", "xavier-init", "zero-init-branch"),
)
explains = ("SD104", "SD301", "SD303", "SD801", "SD803")

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear")


def check(trace: Trace) -> Iterator[Finding]:
    """Measured in the precisions that ran, predicted in those that did not get to their loss."""
    reference = reference_of(trace)
    if reference is None:
        return
    for run in trace.runs:
        if run.precision == "float64" or run.seed or run.step:
            continue
        there = Counterparts(run, reference)
        format = format_of(run.precision)
        for birth in harmful(run):
            largest = overflowed(run, birth, there, format)
            if largest is not None and not _scale_did_it(run, birth, largest, format):
                yield _measured(trace, run, birth, largest, format)
    for missing in trace.not_run:
        if missing.precision not in ("float64", "float32"):
            for op, largest in overflows(reference, missing.precision)[:1]:
                yield _predicted(trace, missing.precision, op, largest)


def _scale_did_it(run: Run, birth: Birth, largest: float, format: Format) -> bool:
    """A gradient that fits unscaled overflowed because of the loss scale: SD105's business."""
    return birth.op.phase == "backward" and birth.leaf is None and largest / run.loss_scale <= format.max


def _measured(trace: Trace, run: Run, birth: Birth, largest: float, format: Format) -> Finding:
    op = birth.op
    healed = None if birth.reaches else healed_wrong(run, birth)
    source = run.ops[op.forward] if op.forward is not None else op
    what = named(run, birth.leaf) if birth.leaf is not None else f"the result of `{op.name}`"
    outcome = f"`{healed.name}` makes a finite but wrong number of the infinity" if healed is not None else _outcome(birth)
    return _finding(
        trace,
        run.precision,
        source,
        f"{what} reaches {largest:,.4g}, {largest / format.max:.3g} times the largest {format.name}; {outcome}",
        {
            "op_index": op.index,
            "largest": largest,
            "victims": len(birth.victims),
            "reaches": birth.victims,
            "healed": healed is not None,
        },
        phase="backward" if op.phase == "backward" else "forward",
    )


def _outcome(birth: Birth) -> str:
    nan = f"NaN from `{birth.became_nan.name}` on" if birth.became_nan is not None else "infinite"
    reached = {"loss": "the loss", "outputs": "the output", "gradients": "the gradients"}
    several = len(birth.reaches) > 1 or "gradients" in birth.reaches
    return f"{' and '.join(reached[r] for r in birth.reaches)} {'are' if several else 'is'} {nan}"


def _predicted(trace: Trace, precision: str, op: Op, largest: float) -> Finding:
    limit = format_of(precision)
    times = f"{largest / limit.max:.3g} times the largest {limit.name}"
    message = f"`{op.name}` would reach {largest:,.4g} in {precision}, {times} (predicted)"
    return _finding(trace, precision, op, message, {"op_index": op.index, "largest": largest, "predicted": True})


def _finding(
    trace: Trace, precision: str, op: Op, message: str, evidence: dict[str, object], phase: str = "forward"
) -> Finding:
    return Finding(
        Severity.ERROR,
        message,
        module=op.module or op.layer,
        op=op.name,
        phase=phase,
        precisions=[precision],
        location=trace.place(op),
        label=f"beyond {format_of(precision).max:,.5g}",
        evidence=dict(evidence),
        fixes=list(_fixes(op, precision)),
    )


def _fixes(op: Op, precision: str) -> Iterator[Fix]:
    if op.name in _PRODUCTS:
        yield Fix("scale-before", "scale one factor before the product instead of the result")
        yield Fix("kaiming-init", "initialise the layer with the gain of its activation")
    yield Fix("float32-island", "compute this expression in float32 and cast the result")
    if format_of(precision).name == "float16":
        yield Fix("bfloat16", "use bfloat16, which has the range of float32")
