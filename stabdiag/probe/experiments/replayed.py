"""States run again: whether what broke the original breaks an edited model, too.

A state is what `stabdiag/probe/experiments/confirmation.py` keeps: values for inputs, parameters and results of ops, under
which a value or a gradient of the original was not finite. They are put in their places on the first batch, in float32, with
the draws of the recorded run, and forward, loss and backward are run.

Writes `trace.experiments.replayed`: for each of `request.states` {"broken": what was not finite, "" where all was; "path"
and "line" of the op at which that began}. A state of which the model has no place any more is broken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from stabdiag.probe.recorder import Recorder, Stage, named_tensors
from stabdiag.recording.operator import Operator
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Op, Run, Trace, Value

Source = dict[str, Any]


def run(recorder: Recorder, trace: Trace, request: ScanRequest, progress: Callable[[str, float], None]) -> None:
    """Run every state of the request."""
    if not request.states or trace.run("float32") is None:
        return
    progress("states", 0.98)
    found: list[dict[str, Any]] = []
    for state in request.states:
        with recorder.stage("float32") as stage:
            found.append(_replayed(recorder, trace, stage, state))
    trace.experiments.replayed = found


def _replayed(recorder: Recorder, trace: Trace, stage: Stage, state: Sequence[Source]) -> dict[str, Any]:
    inputs = recorder.inputs(stage, 0)
    places: dict[str, dict[str, Tensor]] = {
        "input": dict(named_tensors(inputs)),
        "parameter": dict(stage.model.named_parameters()),
        "buffer": dict(stage.model.named_buffers()),
    }
    results: dict[tuple[str, int], Source] = {}
    for source in state:
        if source["kind"] == "result":
            place = _place(trace, source["op"])
            if place is None:
                return {"broken": f"`{source['op']['name']}` in `{source['op']['module']}` is not there any more"}
            results[place] = source
            continue
        tensor = places[source["kind"]].get(source["name"])
        if tensor is None:
            return {"broken": f"`{source['name']}` is not there any more"}
        with torch.no_grad():
            tensor.copy_(_moved(tensor, source))
    run = recorder.record(stage, measure=False, inputs=inputs, change=_Substitution(results))
    if run.error is not None:
        return {"broken": f"it raises {run.error}"}
    if run.finite:
        return {"broken": ""}
    gradient = run.nonfinite_gradient if run.loss is not None and isfinite(run.loss) else None
    broken = f"the gradient of {gradient} is not finite" if gradient is not None else "the loss is not finite"
    at = next((op.location for op in run.ops if op.location is not None and _begins(run, op)), None)
    return {"broken": broken, "path": at.path if at is not None else "", "line": at.line if at is not None else 0}


def _begins(run: Run, op: Op) -> bool:
    """Whether an op makes what is not finite of what is."""
    read, made = run.inputs_of(op), [run.values[i] for i in op.outputs]
    return _broken(made) and not _broken(read)


def _broken(values: list[Value]) -> bool:
    return any(v.stats is not None and v.stats.nonfinite for v in values)


def _place(trace: Trace, op: dict[str, Any]) -> tuple[str, int] | None:
    """(name, which of that name over the whole run) of the op that a state means; None where the model has it no more."""
    base = trace.run("float32")
    named = [o for o in base.phase("forward", "loss") if o.name == op["name"]] if base is not None else []
    inside = [i for i, o in enumerate(named) if o.module == op["module"]]
    return (op["name"], inside[op["occurrence"]]) if op["occurrence"] < len(inside) else None


def _moved(tensor: Tensor, source: Source) -> Tensor:
    """The values of a state for a tensor, or the tensor moved as the state says."""
    if source["values"] is not None and tuple(source["shape"]) == tuple(tensor.shape):
        return torch.tensor(source["values"], dtype=tensor.dtype, device=tensor.device).reshape(tensor.shape)
    how, factor = source["how"], float(source["factor"])
    largest = tensor.detach().abs().max() if tensor.numel() else torch.zeros(())
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    by = factor if source["kind"] == "parameter" else 1.0037 * factor * largest
    moves: dict[str, Callable[[], Tensor]] = {
        "scale": lambda: tensor * factor,
        "negate": lambda: tensor * -factor,
        "raise": lambda: tensor + by,
        "lower": lambda: tensor - by,
        "zero": lambda: torch.zeros_like(tensor),
        "constant": lambda: torch.ones_like(tensor) * largest,
    }
    return moves[how]() if how in moves else tensor


class _Substitution:
    """Writes the values of a state over the results of ops, below autograd, so that gradients pass as they would."""

    def __init__(self, sources: dict[tuple[str, int], Source]) -> None:
        self._sources = sources
        self._seen: Counter[str] = Counter()

    def __call__(self, info: Operator, result: Any) -> None:
        source = self._sources.get((info.name, self._seen[info.name]))
        self._seen[info.name] += 1
        made = result[0] if isinstance(result, tuple) else result
        if source is not None and isinstance(made, Tensor):
            with torch.no_grad():
                made.copy_(_moved(made, source))
