"""How much the model itself amplifies small changes: condition numbers by perturbation in the reference precision.

Two perturbations of relative size 1e-6, each one forward pass:

- `rounding`: every element of every parameter and floating-point input times (1 ± 1e-6). It is what rounding the model to a
  format does, so u·κ is the error that no algorithm can avoid;
- `spread`: the inputs plus noise of 1e-6 of their own standard deviation, feature by feature. It asks whether nearby inputs
  give nearby outputs; a large offset of the data does not count. Where no input can be moved (tokens, masks), `rounding`
  stands for it.

Where every run's error is small, inside as at its ends, a 16-bit run has told as much already, and nothing is run.

Where a run's error is more than these explain, inputs and parameters are moved by the unit roundoff of its format (at random,
and by rounding to it), under the precision's name: a saturated softmax has no slope, and still flips for changes of that
size.

Writes `trace.experiments.conditioning`. Higham 2002, Accuracy and Stability of Numerical Algorithms, 1.6, for the condition
number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

import torch
from torch import Tensor

from stabdiag.evidence.graph.main_path import is_live
from stabdiag.evidence.numbers.blame import FIRST_DIGIT, FLOAT32_HARM, LIMIT, blamed_runs, loss_error
from stabdiag.evidence.numbers.poison import harmful
from stabdiag.probe.precision import HALF, precision
from stabdiag.probe.recorder import Recorder, Stage, named_tensors
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.subject import Inputs
from stabdiag.trace import DISCRETE, Run, Trace
from stabdiag.trace.counterpart import Counterparts, reference_of
from stabdiag.trace.experiments import Conditioning
from stabdiag.trace.formats import format_of

DELTA = {"float64": 1e-6, "float32": 1e-3}
ROUNDED = 1.5  # see `_told_by_rounding`
COST = 1.0  # bare training steps of one forward pass in float64, as `plan._COST`


def run(recorder: Recorder, trace: Trace, request: ScanRequest, progress: Callable[[str, float], None]) -> None:
    """Measure both condition numbers; nothing is written where the reference run broke."""
    reference = reference_of(trace)
    if reference is None or not recorder.reference or not recorder.reference.outputs.parts:
        return
    if (known := _told_by_rounding(trace, reference)) is not None:
        trace.experiments.conditioning = {"rounding": known, "spread": known}
        return
    delta = DELTA[reference.precision]
    rounding = _perturbed(recorder, reference, _round, delta)
    movable = _movable(recorder.subject.batch(0))
    found = {"rounding": rounding, "spread": _perturbed(recorder, reference, _spread, delta) if movable else rounding}
    trace.experiments.conditioning = found
    suspects = [run for run, _ in blamed_runs(trace, LIMIT) if run.precision != reference.precision]
    for suspect in suspects:
        unit = format_of(suspect.precision).unit_roundoff
        cast = partial(_cast, dtype=precision(suspect.precision).compute)
        moved = _perturbed(recorder, reference, _round, unit), _perturbed(recorder, reference, cast, unit)
        found[suspect.precision] = _larger(*moved)
    trace.spent["conditioning"] = COST * ((2 if movable else 1) + 2 * len(suspects))


def _told_by_rounding(trace: Trace, reference: Run) -> Conditioning | None:
    """What a 16-bit run tells: its parameters and inputs were rounded, which is `rounding` with a smaller step.

    Only where every run's error is so small that no criterion asks for more than κ's order of magnitude, and no choice fell
    differently. Rounding moves an element by u at most, so the error over u stays below κ: over 31 healthy architectures κ is
    1.0 to 2.6 times it, 1.5 in the median.
    """
    runs = [r for r in trace.runs if r.precision != "float64" and not r.step and not r.seed]
    told = [r for r in runs if precision(r.precision).cast in HALF]
    if not told or not all(_small(run, reference) for run in runs):
        return None
    run = told[-1]
    found = _summary(run, reference, format_of(run.precision).unit_roundoff / ROUNDED)
    return None if found.flips else found


def _small(run: Run, reference: Run) -> bool:
    """Whether the error is none that a criterion would look into, whatever κ. The less of the outputs tells samples apart, the
    larger are both the error and κ: in 16 bits the error is judged beside the outputs themselves."""
    if run.error is not None or run.output_error is None or harmful(run):
        return False
    format = format_of(run.precision)
    wide = format.name == "float32"
    most = FLOAT32_HARM if wide else LIMIT * format.unit_roundoff
    beside = 1.0 if wide else reference.output_spread or 1.0
    if run.output_error * beside >= most or (loss_error(run) or 0.0) >= most:
        return False
    inside = (v for op in run.phase("forward", "loss") if is_live(run, op.index) and (v := run.output_of(op)) is not None)
    return all((v.error or 0.0) < FIRST_DIGIT for v in inside if v.dtype.startswith(("float", "bfloat")))


def _perturbed(
    recorder: Recorder, reference: Run, perturb: Callable[[Stage, Inputs, float], None], delta: float
) -> Conditioning:
    assert recorder.reference is not None
    with recorder.stage(reference.precision) as stage, torch.no_grad():
        inputs = recorder.inputs(stage, 0)
        perturb(stage, inputs, delta)
        return _summary(recorder.forward(stage, inputs, against=recorder.reference), reference, delta)


def _summary(run: Run, reference: Run, delta: float) -> Conditioning:
    there = Counterparts(run, reference)
    ops: dict[int, float] = {}
    flips = []
    for op in run.ops:
        value, same = run.output_of(op), there.op(op)
        if value is None or value.error is None or same is None:
            continue
        if op.name in DISCRETE and not value.dtype.startswith(("float", "bfloat")):
            flips += [same.index] if value.error else []
        else:
            ops[same.index] = value.error / delta
    output = None if run.output_error is None else run.output_error / delta
    return Conditioning(output, ops, flips)


def _larger(a: Conditioning, b: Conditioning) -> Conditioning:
    """The larger condition number of two perturbations of the same size."""
    ops = {i: max(a.ops.get(i, 0.0), b.ops.get(i, 0.0)) for i in {**a.ops, **b.ops}}
    outputs = [k for k in (a.output, b.output) if k is not None]
    return Conditioning(max(outputs, default=None), ops, sorted({*a.flips, *b.flips}))


def _cast(stage: Stage, inputs: Inputs, delta: float, dtype: torch.dtype) -> None:
    """Round every element to a format."""
    for tensor in [*stage.model.parameters(), *_floating(inputs)]:
        tensor.copy_(tensor.to(dtype))


def _round(stage: Stage, inputs: Inputs, delta: float) -> None:
    """Multiply every element by 1 ± delta."""
    generator = torch.Generator().manual_seed(0)
    for tensor in [*stage.model.parameters(), *_floating(inputs)]:
        signs = torch.randint(0, 2, tensor.shape, generator=generator).to(tensor) * 2 - 1
        tensor.mul_(1 + delta * signs)


def _spread(stage: Stage, inputs: Inputs, delta: float) -> None:
    """Add noise of `delta` standard deviations to the inputs. What pads (zeros) stays."""
    generator = torch.Generator().manual_seed(0)
    for tensor in _movable(inputs):
        noise = torch.randn(tensor.shape, generator=generator).to(tensor)
        tensor.add_(noise * (tensor != 0) * (delta * _deviation(tensor)))


def _movable(inputs: Inputs) -> list[Tensor]:
    """Inputs that measure something: what counts or selects is a whole number."""
    return [t for t in _floating(inputs) if t.numel() > 1 and not bool((t == t.round()).all())]


def _deviation(tensor: Tensor) -> Tensor:
    """Standard deviation that each element is measured by: the smallest of those of the whole, of its feature
    and of its channel, so that no feature is moved by the spread of another."""
    deviation = tensor.std()
    kept = range(1, tensor.dim())
    for dims in ([d for d in range(tensor.dim()) if d != k] for k in kept):
        if prod(tensor.shape[d] for d in dims) > 1:
            deviation = torch.minimum(deviation, tensor.std(dim=dims, keepdim=True).nan_to_num(float("inf")))
    return deviation.nan_to_num(0.0)


def _floating(inputs: Inputs) -> list[Tensor]:
    return [t for _, t in named_tensors(inputs) if t.is_floating_point()]
