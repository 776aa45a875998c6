"""Does it matter that a side branch is computed badly? The run again, with what the branch makes taken from the reference.

A residual stream dilutes what a branch adds: phases that are off by radians cost the outputs a few percent. Where ops lose the
first digit of their result by their own doing (`stabdiag.evidence.numbers.blame.made_inside`) and the ends of the run do not
show it, their results of the reference run are put in their place. Outputs that come closer to the reference by half were off
because of them. One forward pass of the reference and one in the precision.

Writes `trace.experiments.side_branches`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from stabdiag.evidence.numbers.blame import LIMIT, made_inside
from stabdiag.probe.recorder import Recorder
from stabdiag.recording.operator import Operator
from stabdiag.recording.tracer import Execute
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Op, Run, Trace
from stabdiag.trace.counterpart import Counterparts, reference_of
from stabdiag.trace.experiments import SideBranches
from stabdiag.trace.formats import format_of

LEAST = 2.0  # units of roundoff that the outputs must be off by: below, nothing was lost

_Place = tuple[str, int]  # name of an op, and how many of that name ran before it in forward and loss


def run(recorder: Recorder, trace: Trace, request: ScanRequest, progress: Callable[[str, float], None]) -> None:
    """Try every 16-bit run in which ops lose their first digit inside."""
    reference = reference_of(trace)
    found = trace.experiments.side_branches
    for before in trace.runs:
        unit = format_of(before.precision).unit_roundoff
        if reference is None or unit <= format_of("float32").unit_roundoff or before.step or before.seed:
            continue
        ops = made_inside(trace, before, LIMIT) if (before.output_error or 0.0) > LEAST * unit else []
        there = Counterparts(before, reference)
        pairs = [(op, same) for op in ops if (same := there.op(op)) is not None]
        if not pairs:
            continue
        wide = _taken(recorder, reference, [same for _, same in pairs])
        places, given = _places(before), _places(reference)
        right = {places[op.index]: wide[given[same.index]] for op, same in pairs if given[same.index] in wide}
        with recorder.stage(before.precision) as stage:
            how = _replacing(stage.execute, right)
            after = recorder.forward(stage, recorder.inputs(stage, 0), against=recorder.reference, execute=how)
        trace.spent["side branches"] = trace.spent.get("side branches", 0.0) + 2.0
        if after.output_error is not None and before.output_error is not None:
            indices = [op.index for op, _ in pairs]
            found[before.precision] = SideBranches(indices, before.output_error, after.output_error)


def _places(run: Run) -> dict[int, _Place]:
    """The ops of forward and loss, by what also finds them in a pass without autograd, which saves no outputs."""
    counts: dict[str, int] = {}
    places = {}
    for op in run.phase("forward", "loss"):
        places[op.index] = (op.name, counts.get(op.name, 0))
        counts[op.name] = places[op.index][1] + 1
    return places


def _taken(recorder: Recorder, reference: Run, ops: list[Op]) -> dict[_Place, Tensor]:
    """What ops of the reference run make."""
    places = _places(reference)
    wanted = {places[op.index] for op in ops}
    taken: dict[_Place, Tensor] = {}

    def keep(place: _Place, result: Any) -> Any:
        if place in wanted and isinstance(result, Tensor):
            taken[place] = result.clone()
        return result

    with recorder.stage(reference.precision) as stage:
        recorder.forward(stage, recorder.inputs(stage, 0), execute=_with(stage.execute, keep))
    return taken


def _replacing(execute: Execute, right: dict[_Place, Tensor]) -> Execute:
    def replace(place: _Place, result: Any) -> Any:
        fits = place in right and isinstance(result, Tensor) and result.shape == right[place].shape
        return right[place].to(result) if fits else result

    return _with(execute, replace)


def _with(execute: Execute, change: Callable[[_Place, Any], Any]) -> Execute:
    """Run ops as before, and hand on what `change` makes of their results."""
    counts: dict[str, int] = {}

    def how(func: Any, info: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        result = execute(func, info, args, kwargs)
        place = (info.name, counts.get(info.name, 0))
        counts[info.name] = place[1] + 1
        return change(place, result) if not info.mutates else result

    return how
