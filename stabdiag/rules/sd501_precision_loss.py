"""An op loses more digits than rounding the model's inputs and weights would.

## What it does
Compares every run with the float64 run on identical weights, inputs and dropout masks. With e the relative L2 error of the
outputs, u the unit roundoff of the format and κ the condition number for rounding (all inputs and parameters perturbed by
1e-6 in float64), the instability index is I = e / (u · max(1, κ)). Where I of the outputs is too large, the error is followed
back to the op at which I jumps: the op named here. The loss is followed back likewise where the outputs are right. The op's
local error, the op redone in float64 from the inputs it had, says whether its own arithmetic or the rounding of its operand is
amplified. Differences that cancel are SD503.

A side branch that loses its first digit in 16 bits (error above 0.1, I above `warning`) may go under in the stream it is added
to. It is a warning when the outputs come closer to the reference by half once its results are taken from there.

## Why it matters
The run is finite and the loss goes down, but the model computes something else than its author wrote: rotary phases in
bfloat16 are off by whole radians beyond position 256. Nothing in a loss curve shows it.

## Bad
```python
import torch
from torch import nn


class Waves(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("frequency", 1.0 / 1000 ** (torch.arange(8) / 8))
        self.mix = nn.Linear(16, 8)
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        position = torch.arange(x.shape[1]).to(x.dtype)
        angle = position[:, None] * self.frequency  # expect: SD501
        waves = torch.cat([angle.sin(), angle.cos()], -1)
        return self.out(x * self.mix(waves))


def build_model():
    torch.manual_seed(0)
    return Waves()


def example_inputs():
    return (torch.randn(2, 1000, 8, generator=torch.Generator().manual_seed(0)),)


def loss(output):
    return output.square().mean()
```

## Good
```python
import torch
from torch import nn


class Waves(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("frequency", 1.0 / 1000 ** (torch.arange(8) / 8))
        self.mix = nn.Linear(16, 8)
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        position = torch.arange(x.shape[1]).float()
        frequency = 1.0 / 1000 ** (torch.arange(8) / 8)
        angle = position[:, None] * frequency
        waves = torch.cat([angle.sin(), angle.cos()], -1).to(x.dtype)
        return self.out(x * self.mix(waves))


def build_model():
    torch.manual_seed(0)
    return Waves()


def example_inputs():
    return (torch.randn(2, 1000, 8, generator=torch.Generator().manual_seed(0)),)


def loss(output):
    return output.square().mean()
```

## What it does not detect
Error that the model's own conditioning explains (SD502), error behind a discrete choice that fell differently (top-k,
routing, comparison), and error in gradients alone. In float32, outputs off by less
than 2^-11, which float16 could not hold more accurately, and those that a narrower format computes better: code that asks for
the dtype (an epsilon by dtype) is another computation, no rounding.

## Thresholds
- `warning` = 8: I from which a warning is given, times 4 in float32. Over 31 healthy architectures and 30 repaired models I
  is 0.01 to 1.6 in half precisions and 0.01 to 6.2 in float32; rotary phases in bfloat16 over 1,024 positions give 30.
- `error` = 256: I from which it is an error, times 4 in float32.
- Where the author casts to a format with fewer digits than the run's, its own rounding is a choice. Such a cast is reported
  from an error of 0.1 of the outputs on: 16 bits throughout cost healthy models up to 0.03.
- `halved` = 0.5: share of the outputs' error that is left once the results of a side branch are right, below which they are
  off because of it.
- `output_error` = 0.1: an index above `warning` is an error too when the outputs have lost their first digit, since in
  bfloat16 no index can exceed 1/u = 256.

## References
- Higham 2002, Accuracy and Stability of Numerical Algorithms, 1.5 and 1.6.
- huggingface/transformers issue 29285: rotary embeddings in bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.numbers.blame import FLOAT32_FACTOR, LIMIT, Blame, blamed_runs
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Op, Run, Stats, Trace, Value
from stabdiag.trace.experiments import SideBranches
from stabdiag.trace.formats import format_of

# Functions whose result depends on the absolute error of a large operand: the edit belongs where the operand is made.
# fmt: off
KIND = "rounding"
LEVEL = "op"
BLOCKS = True
REMEDIES = (
    *("centre-first", "direct-difference", "float32-island", "float32-phases", "float64-island"),
    *("integer-positions", "no-narrow-cast", "two-pass-variance"),
)

_OF_ABSOLUTE_ERROR = frozenset((
    "cos", "sin", "tan", "exp", "exp2", "expm1", "remainder", "fmod", "frac", "floor", "round", "embedding",
    "_embedding_bag", "index", "index_select", "gather", "take",
))
# fmt: on


def check(
    trace: Trace, *, warning: float = LIMIT, error: float = 256.0, output_error: float = 0.1, halved: float = 0.5
) -> Iterator[Finding]:
    """One finding per run whose error is made by an op that is no cancelling difference, and per line of a side branch."""
    for run, blamed in blamed_runs(trace, warning):
        if blamed.cancels(format_of(run.precision)) or blamed.fatal:
            continue
        factor = FLOAT32_FACTOR if format_of(run.precision).name == "float32" else 1.0
        bad = blamed.index > error * factor or (blamed.result or 0.0) > output_error
        yield _finding(trace, run, blamed, Severity.ERROR if bad else Severity.WARNING)
    for precision, tried in trace.experiments.side_branches.items():
        diluted = trace.run(precision)
        if diluted is not None and tried.after < halved * tried.before:
            yield from _of_branches(trace, diluted, tried)


def _of_branches(trace: Trace, run: Run, tried: SideBranches) -> Iterator[Finding]:
    """Ops inside whose results, taken from the reference, bring the outputs closer to it: one finding per line to edit."""
    lines: dict[object, tuple[Op, Op]] = {}
    for op in (run.ops[i] for i in tried.ops):
        edit = _operand(run, op) if op.name in _OF_ABSOLUTE_ERROR else op
        at = trace.place(edit)
        lines.setdefault((at.path, at.line) if at is not None else edit.index, (op, edit))
    for op, edit in lines.values():
        value, operand = run.output_of(op), run.output_of(edit)
        error = value.error if value is not None else None
        if error is None:
            continue
        notes = [f"evidence: with what the reference makes there the outputs are off by {tried.after:.2g}"]
        if operand is not None and operand.stats is not None and edit is not op:
            notes.append(_spacing(operand, operand.stats))
        yield Finding(
            Severity.WARNING,
            f"`{op.name}` is off by {error:.0%} in {run.precision}, in a branch that what it is added to hides: because of it "
            f"the outputs are off by {tried.before:.2g}",
            module=op.module or op.layer,
            op=op.name,
            precisions=[run.precision],
            location=trace.place(edit),
            label=f"off by {error:.0%} in {run.precision}" if edit is op else f"too coarse in {run.precision} for `{op.name}`",
            notes=notes,
            evidence={"op_index": op.index, "error": error, "output_error": tried.before, "without": tried.after},
            fixes=[Fix("float32-island", "compute this expression in float32 and cast the result")],
        )


def _spacing(value: Value, stats: Stats) -> str:
    spacing = format_of(value.dtype).spacing(stats.max_abs)
    return f"cause: its operand reaches {stats.max_abs:,.4g}, where {value.dtype} has a spacing of {spacing:.2g}"


def _finding(trace: Trace, run: Run, blamed: Blame, severity: Severity) -> Finding:
    op = blamed.op
    edit = _operand(run, op) if op.name in _OF_ABSOLUTE_ERROR else op
    alone = trace.experiments.local_error.get(run.precision)
    local = alone.local if alone is not None else None
    made = "amplifies" if local is None or local < blamed.error / 4 else "makes"
    message = _of_a_cast(run, blamed) or (
        f"`{op.name}` has a relative error of {blamed.error:.2g} in {run.precision}, {blamed.index:,.0f} times what rounding "
        f"the model once costs; {blamed.outcome}"
    )
    notes = [
        f"cause: the op {made} the error: inherited {blamed.inherited:.2g}{'' if local is None else f', local {local:.2g}'}"
    ]
    operand = run.output_of(edit)
    if edit is not op and operand is not None and operand.stats is not None:
        notes.append(_spacing(operand, operand.stats))
    return Finding(
        severity,
        message,
        module=op.module or op.layer,
        op=op.name,
        precisions=[run.precision],
        location=trace.place(edit),
        label=f"loses {blamed.index:,.0f} times the unavoidable"
        if edit is op
        else f"too coarse in {run.precision} for `{op.name}`",
        notes=notes,
        evidence={
            "op_index": op.index,
            "index": blamed.index,
            "error": blamed.error,
            "inherited": blamed.inherited,
            "local": local,
            "output_error": blamed.result,
        },
        fixes=[Fix("float32-island", "compute this expression in float32 and cast the result")],
    )


def _of_a_cast(run: Run, blamed: Blame) -> str:
    """What a format that the author chose costs, "" where the op works in the format of the run."""
    value = run.output_of(blamed.op)
    if not blamed.narrowed or value is None or value.stats is None:
        return ""
    largest = value.stats.max_abs
    return (
        f"held in {value.dtype}, where numbers up to {largest:,.4g} lie {format_of(value.dtype).spacing(largest):.2g} apart: "
        f"in {run.precision} the outputs are off by {blamed.result or 0.0:.0%} of what tells samples apart"
    )


def _operand(run: Run, op: Op) -> Op:
    """The op that makes what a function is given; what makes the rounded number, where it is given integers cast from one."""
    for value_id in op.inputs:
        made = run.producer(run.behind_views(value_id))
        while made is not None and made.inputs and not run.values[made.outputs[0]].dtype.startswith(("float", "bfloat")):
            made = run.producer(run.behind_views(made.inputs[0]))
        if made is not None and made.location is not None:
            return made
    return op
