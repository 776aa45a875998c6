"""What happens when the operand of a lost epsilon is zero: the model is run in that format with one element of it set to 0.

One forward pass per epsilon in the format and one in float32, where the epsilon must help; and one in float32 on a batch whose
first sample is all zeros, to see which operands a blank input brings to zero.

Writes `trace.experiments.epsilon`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from stabdiag.evidence.numbers.epsilon import Epsilon, lost
from stabdiag.probe.recorder import Recorder, named_tensors
from stabdiag.recording.operator import Operator
from stabdiag.recording.tracer import Execute, plain
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Trace
from stabdiag.trace.counterpart import Counterparts
from stabdiag.trace.experiments import EpsilonTried

MOST = 6  # epsilons tried per precision; more places of one kind tell nothing new


def run(recorder: Recorder, trace: Trace, request: ScanRequest, progress: Callable[[str, float], None]) -> None:
    """Push the operand of every lost epsilon to zero."""
    base = trace.run("float32")
    found: dict[str, dict[int, EpsilonTried]] = {}
    for before in trace.runs:
        if before.precision in ("float64", "float32") or before.step or before.seed or base is None:
            continue
        sites: dict[object, Epsilon] = {}
        for epsilon in lost(before):
            if not epsilon.absorbed:  # the confirmation of the singular op says where those are missed
                sites.setdefault(epsilon.op.site, epsilon)
        for epsilon in list(sites.values())[:MOST]:
            same = Counterparts(before, base).op(epsilon.op)
            breaks = _breaks(recorder, before.precision, epsilon.op.index)
            guarded = same is not None and not _breaks(recorder, "float32", same.index)
            fact = EpsilonTried(breaks and guarded, same is not None and _reached(recorder, same.index))
            found.setdefault(before.precision, {})[epsilon.op.index] = fact
            trace.spent["epsilon"] = trace.spent.get("epsilon", 0.0) + 1.5
    if found:
        trace.experiments.epsilon = found


def _breaks(recorder: Recorder, precision: str, index: int) -> bool:
    """Whether the loss or an output becomes non-finite when the operand holds the value that the epsilon guards against."""
    with recorder.stage(precision) as stage:
        how = _at(stage.execute, index, _zeroed)
        after = recorder.forward(stage, recorder.inputs(stage, 0), execute=how)
    return after.loss is None or after.loss != after.loss or abs(after.loss) == float("inf")


def _reached(recorder: Recorder, index: int) -> bool:
    """Whether a sample of zeros brings the operand to zero."""
    seen: list[bool] = []

    def look(args: list[Any]) -> list[Any]:
        seen.append(isinstance(args[0], Tensor) and bool((args[0].abs() < 1e-30).any()))
        return args

    with recorder.stage("float32") as stage:
        inputs = recorder.inputs(stage, 0)
        for _, tensor in named_tensors(inputs):
            if tensor.is_floating_point() and tensor.dim() > 1:
                with torch.no_grad():
                    tensor[0].zero_()
        recorder.forward(stage, inputs, execute=_at(plain, index, look))
    return any(seen)


def _zeroed(args: list[Any]) -> list[Any]:
    """The first element set to 0."""
    operand = args[0].clone()
    operand.view(-1)[0] = 0.0
    return [operand, *args[1:]]


def _at(execute: Execute, index: int, change: Callable[[list[Any]], list[Any]]) -> Execute:
    """Run ops as before, the one of a position with changed arguments."""
    count = -1

    def how(func: Any, info: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        nonlocal count
        count += 1
        if count == index and args and isinstance(args[0], Tensor) and args[0].numel() and not info.mutates:
            args = change(list(args))
        return execute(func, info, args, kwargs)

    return how
