"""Does the loss depend on any parameter? Where no parameter gets more of a gradient than rounding noise, all are redrawn.

A loss that stays what it was, at every scale of the draw and without a gradient at any, is a constant to the optimizer: a
second derivative of a piecewise linear network, a value centred or normalised over a dimension of size 1. The run on redrawn
parameters, compared op by op with the reference, shows where: at the last op on the way to the loss whose inputs changed and
whose result did not (where that is a mask which leaves nothing over, this batch tells nothing). A loss that autograd does not
track needs no draw: the record says where the gradient was cut off.

Writes `trace.experiments.loss_dependence`; nothing
where the loss depends on a parameter or there is none to train.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

import torch

from stabdiag.probe.experiments.zero_gradient import DRAWS, NOISE, draw, step
from stabdiag.probe.recorder import SEED, Recorder
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Op, Run, Trace
from stabdiag.trace.counterpart import Counterparts
from stabdiag.trace.experiments import LossDependence

Progress = Callable[[str, float], None]


def run(recorder: Recorder, trace: Trace, request: ScanRequest, progress: Progress) -> None:
    """Look where the gradient is cut off, or redraw the parameters."""
    base = trace.base
    if base is None or base.error is not None or base.loss is None or not any(p.requires_grad for p in base.parameters):
        return
    if all(p.gradient is None for p in base.parameters):
        cut = _cut_off(base)
        trace.experiments.loss_dependence = LossDependence("autograd", None if cut is None else cut.index)
    elif all(_noise_only(r) for r in trace.runs if r.precision in ("float64", "float32") and r.error is None):
        redrawn = _redrawn(recorder, trace)
        trace.spent["loss dependence"] = 2.5 * len(DRAWS)
        cut = None if redrawn is None else _made_constant(redrawn, trace)
        if redrawn is not None and not (cut is not None and _selects(redrawn, cut)):
            there = None if cut is None else Counterparts(redrawn, base).op(cut)
            trace.experiments.loss_dependence = LossDependence("value", None if there is None else there.index)


def _noise_only(run: Run) -> bool:
    """Whether no parameter has a gradient beside that of the loss by what it is computed from."""
    largest = max((v.gradient.max_abs for v in run.values if v.gradient is not None), default=0.0) / run.loss_scale
    gradients = [p.gradient for p in run.parameters if p.gradient is not None]
    if run.loss is None or not isfinite(run.loss) or any(g.nonfinite for g in gradients):
        return False
    return all(g.max_abs <= NOISE[run.precision] * largest for g in gradients)


def _redrawn(recorder: Recorder, trace: Trace) -> Run | None:
    """The run on redrawn parameters; None when one of the draws changes the loss or gets a gradient."""
    precision = "float64" if trace.run("float64") is not None else "float32"
    recorded: Run | None = None
    with recorder.stage(precision) as stage:
        before = step(recorder, stage)
        generator = torch.Generator().manual_seed(SEED)
        trained = [p for p in stage.model.parameters() if p.requires_grad and p.numel()]
        for scale in DRAWS:
            for parameter in trained:
                parameter.data.copy_(scale * draw(parameter, generator))
            after = recorder.record(stage, against=recorder.reference, measure=False)
            if before is None or after.loss is None or not isfinite(after.loss) or not _noise_only(after):
                return None
            if abs(after.loss - before) > NOISE[precision] * max(abs(before), abs(after.loss)):
                return None
            recorded = recorded or after
    return recorded


def _ancestors(run: Run) -> list[Op]:
    """The ops that the loss is computed from, whatever autograd knows of it, in order of execution."""
    found: set[int] = set()
    stack = [run.loss_value] if run.loss_value is not None else []
    while stack:
        op = run.producer(stack.pop())
        if op is not None and op.index not in found:
            found.add(op.index)
            stack.extend(op.inputs)
    return [run.ops[i] for i in sorted(found)]


def _cut_off(run: Run) -> Op | None:
    """The last op that was given a gradient's way back and whose result, read on the way to the loss, has none."""
    ancestors = _ancestors(run)
    inside = {op.index for op in ancestors}
    for op in reversed(ancestors):
        readers = [r for v in op.outputs for r in run.consumers(v) if r.index in inside]
        if op.tracked and any(not reader.tracked for reader in readers):
            leaves = (
                op.name == "detach" or not op.recording or not run.values[op.outputs[0]].dtype.startswith(("float", "bfloat"))
            )
            return op if leaves else next(reader for reader in readers if not reader.tracked)
    tracked = [op for op in run.phase("forward", "loss") if op.tracked]
    return tracked[-1] if tracked else None


def _made_constant(run: Run, trace: Trace) -> Op | None:
    """The last op on the way to the loss that was given changed values and made of them what it made before."""
    reference = trace.run("float64") or trace.base
    assert reference is not None
    there = Counterparts(run, reference)
    changed = {i for i, v in enumerate(run.values) if v.kind == "parameter"}
    cut = None
    for op in run.phase("forward", "loss"):
        moved = bool(changed.intersection(op.inputs))
        for value_id in op.outputs:
            if moved and not _same(run, there, value_id):
                changed.add(value_id)
    for op in _ancestors(run):
        if changed.intersection(op.inputs) and not changed.intersection(op.outputs):
            cut = op
    return cut


def _selects(run: Run, op: Op) -> bool:
    """Whether a mask or an index decides what an op takes: one that takes nothing is the batch's doing, the next has some."""
    shown = [run.behind_views(i) for i in op.inputs]
    return any(not run.values[i].dtype.startswith(("float", "bfloat")) for i in shown)


def _same(run: Run, there: Counterparts, value_id: int) -> bool:
    """Whether a value is known to be what it was in the reference; a view is what it shows."""
    value = run.values[shown] if (shown := run.behind_views(value_id)) != value_id else run.values[value_id]
    if value.error is not None:
        return value.error <= NOISE[run.precision]
    other = there.value(run, shown)
    if value.stats is None or other is None or other.stats is None:
        return False
    return value.stats.max_abs == other.stats.max_abs == 0.0
