"""State that the forward pass carries on: running averages, slow copies of weights, counters.

How much of itself a state keeps from one pass to the next is read from the graph: the derivative of what it holds after the
pass with respect to what it held before, through the sums, scalar factors and interpolations between the two. new = a·old + …
with 0 < a < 1 is an average that moves by the share r = 1 - a of its distance to what it follows; a = 1 adds up. A state that
is made anew of something else (the vectors of a power iteration) has no such derivative, and rounding does not stop it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stabdiag.trace import Op, Run


@dataclass(frozen=True)
class State:
    """One buffer or parameter that the forward pass writes.

    Attributes:
        name: its path; dtype: of what it holds afterwards.
        keeps: the factor a.
        op: the first op on the way from the old to the new content that changes it.
        grows: for a = 1: nothing that was added was negative and something was positive.
    """

    name: str
    dtype: str
    keeps: float
    op: Op
    grows: bool = False


def states(run: Run) -> Iterator[State]:
    """Every state of a run that keeps a known part of itself."""
    leaves = {value.name: i for i, value in enumerate(run.values) if value.kind in ("buffer", "parameter")}
    for name, written in run.state.items():
        if name not in leaves:
            continue
        factor, steps = _followed(run, leaves[name], written)
        first = next((op for op in steps if not op.view), None)
        if factor is not None and first is not None:
            yield State(name, run.values[written].dtype, factor, first, factor == 1.0 and all(_adds(run, op) for op in steps))


def _followed(run: Run, old: int, new: int) -> tuple[float | None, list[Op]]:
    """The derivative of a value with respect to another, and the ops between; None where it is not known."""
    slope: dict[int, float] = {old: 1.0}
    passed: dict[int, list[Op]] = {old: []}
    for op in run.phase("forward", "loss"):
        read = [i for i in op.inputs if i in slope]
        if read and op.outputs and (found := _slope(run, op, slope)) is not None:
            slope[op.outputs[0]] = found
            passed[op.outputs[0]] = [*passed[read[0]], op]
    return slope.get(new), passed.get(new, [])


def _slope(run: Run, op: Op, slope: dict[int, float]) -> float | None:
    name = op.name.rstrip("_")
    at = [slope.get(i, 0.0) for i in op.inputs]
    if name == "copy":
        return at[1] if len(at) > 1 and op.inputs[1] in slope else None
    if op.view:
        return at[0]
    alpha = _number(op.attributes.get("alpha"), 1.0)
    other = op.attributes.get("other")
    if name in ("add", "sub", "rsub") and alpha is not None:
        second = alpha * at[1] if len(at) > 1 else 0.0
        return at[0] + second if name == "add" else at[0] - second if name == "sub" else second - alpha * at[0]
    if name in ("mul", "div"):
        held = [i for i in op.inputs if i not in slope]
        factor = _number(other, None) if len(op.inputs) == 1 else _uniform(run, held[0]) if len(held) == 1 else None
        if factor is None or (name == "div" and (op.inputs[0] not in slope or not factor)):
            return None
        return sum(at) * factor if name == "mul" else at[0] / factor
    if name == "lerp":
        weight = _number(op.attributes.get("weight"), None) if len(at) == 2 else _uniform(run, op.inputs[2])
        return None if weight is None else (1 - weight) * at[0] + weight * at[1]
    return -at[0] if name == "neg" else None


def _number(value: object, default: float | None) -> float | None:
    return float(value) if isinstance(value, int | float) else default


def _uniform(run: Run, value_id: int) -> float | None:
    """The one number that a tensor holds everywhere."""
    stats = run.values[run.behind_views(value_id)].stats
    return stats.min if stats is not None and stats.count and stats.min == stats.max and not stats.nonfinite else None


def _adds(run: Run, op: Op) -> bool:
    """Whether an op on the way of a sum adds a number above 0, or values none of which is below."""
    if op.view:
        return True
    added = op.attributes.get("other")
    if op.name.rstrip("_") != "add":
        return False
    if len(op.inputs) == 1:
        return isinstance(added, int | float) and added > 0
    stats = run.values[run.behind_views(op.inputs[1])].stats
    return stats is not None and stats.sampled > 0 and stats.min >= 0 and stats.max_abs > 0
