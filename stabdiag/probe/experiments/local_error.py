"""Local error of the op that is blamed for a run's error: the op redone in float64 from the inputs it had.

Done only where the inherited errors give a reason (`stabdiag.evidence.numbers.blame`), one forward pass per precision. A small
local error at an op with a large error says that the op amplifies the rounding of its inputs; a large one, that its own
arithmetic does it.

Writes `trace.experiments.local_error`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from stabdiag.evidence.numbers.blame import LIMIT, blamed_runs
from stabdiag.probe.recorder import Recorder
from stabdiag.recording import stats
from stabdiag.recording.operator import Operator
from stabdiag.recording.reference import relative_error
from stabdiag.recording.torch_private import tree_map
from stabdiag.recording.tracer import Execute
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Trace
from stabdiag.trace.counterpart import Counterparts
from stabdiag.trace.experiments import LocalError


def run(recorder: Recorder, trace: Trace, request: ScanRequest, progress: Callable[[str, float], None]) -> None:
    """Redo the blamed op of every run that has one."""
    found = {}
    for before, blamed in blamed_runs(trace, LIMIT):
        local: dict[int, float] = {}
        with recorder.stage(before.precision) as stage:
            how = _measuring(stage.execute, blamed.op.name, local)
            again = recorder.forward(stage, recorder.inputs(stage, 0), execute=how)
        there = Counterparts(before, again).op(blamed.op)
        if there is not None and there.index in local:
            found[before.precision] = LocalError(blamed.op.index, local[there.index])
    if found:
        trace.experiments.local_error = found
        trace.spent["local error"] = float(len(found))


def _measuring(execute: Execute, name: str, local: dict[int, float]) -> Execute:
    """Run ops as before and note the local error of those of a name, by index in the run."""
    count = 0

    def how(func: Any, info: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        nonlocal count
        wide = tree_map(_double, (list(args), dict(kwargs))) if info.name == name and not info.mutates else None
        result = execute(func, info, args, kwargs)
        if wide is not None and isinstance(result, Tensor) and result.is_floating_point():
            error = relative_error(stats.sample(result), stats.sample(func(*wide[0], **wide[1])))
            if error is not None:
                local[count] = error
        count += 1
        return result

    return how


def _double(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.double() if leaf.is_floating_point() else leaf
    return torch.float64 if isinstance(leaf, torch.dtype) and leaf.is_floating_point else leaf
