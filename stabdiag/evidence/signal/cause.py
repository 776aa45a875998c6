"""Why a gradient changes from layer to layer: the share of the weights and the share of what lies between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite, log10
from statistics import median

from stabdiag.evidence.graph.author_line import line_of_op, line_of_weight
from stabdiag.evidence.graph.main_path import is_layer
from stabdiag.evidence.signal.depth import Course, data_of, gradient_of, weights_of
from stabdiag.evidence.signal.initialisation import GAINS, behind, layer_scales, remedy
from stabdiag.finding import Fix
from stabdiag.trace import Location, Op, Run, Trace


@dataclass(frozen=True)
class Cause:
    """Where a gradient is lost or blown up, and the edit for it.

    Attributes:
        text: one clause with the measured fact.
        module, op, location: the place to edit; width: units of the layer there, 0 if unknown.
        factor: name of the parameter that multiplies the state at every step, "" where none does.
    """

    text: str
    module: str
    op: str
    location: Location | None
    width: int = 0
    fixes: list[Fix] = field(default_factory=list)
    factor: str = ""


def cause_of_loss(trace: Trace, run: Run, course: Course) -> Cause:
    """The kind of op that loses most of the gradient over the whole way, at the line where it loses most of it."""
    op, keeps = _most_to_blame(trace, run, course, sign=-1)
    if op is None or is_layer(run, op):
        return _weights(trace, run, course, op)
    name = op.name.rstrip("_")
    fixes = []
    if op.name in GAINS or "softmax" in op.name:
        fixes = [Fix("replace-activation", f"use an activation that does not saturate instead of {name}")]
    text = f"`{name}` keeps {10**keeps:.2g} of the gradient (median over depth)"
    return Cause(text, op.module or op.layer, op.name, line_of_op(trace, op), _width(run, course.steepest), fixes)


def cause_of_growth(trace: Trace, run: Run, course: Course) -> Cause:
    """The kind of op that multiplies the gradient most over the way: a residual stream's additions, weights, or others."""
    op, times = _most_to_blame(trace, run, course, sign=1)
    if op is None or is_layer(run, op):
        return _weights(trace, run, course, op)
    text, fixes = f"`{op.name.rstrip('_')}` multiplies the gradient by {10**times:.2g} (median over depth)", []
    if op in course.ops:
        streams = [o for o in course.ops if not is_layer(run, o)]
        text = f"{len(streams)} branches add to the stream and each multiplies its gradient by {10**-course.slope:.2g}"
        fixes = [Fix("scale-branches", "scale each branch by 1/√(2N)")]
    read = (run.values[run.behind_views(i)] for i in op.inputs)
    factor = next((v.name for v in read if v.kind == "parameter"), "") if course.in_steps else ""
    if factor:
        text = f"every step multiplies by `{factor}`, and with it the gradient by {10**times:.2g} (median)"
        fixes = [Fix("unit-factor", "let the factor that carries the state start at 1")]
    return Cause(text, op.module or op.layer, op.name, line_of_op(trace, op), _width(run, op), fixes, factor)


def shares(run: Run, course: Course) -> dict[int, float]:
    """Decades by which each op on the way changes the gradient (negative: loses), less what the neighbours make up for.

    A rectifier of gain √2 keeps √½ and weights for it are to give that back: its share is 0, and so is that of such weights.
    """
    changed: dict[int, float] = {}
    read: float | None = None
    for op in course.way:
        gradient = gradient_of(run, op.outputs[0]) if op.outputs and not op.view else None
        if gradient is None or not isfinite(gradient.norm) or gradient.norm <= 0:
            continue
        if read is not None:
            due = 1 / GAINS.get(behind(run, op)[0], 1.0) if is_layer(run, op) else GAINS.get(op.name, 1.0)
            changed[op.index] = log10(due * read / gradient.norm)
        read = gradient.norm
    return changed


def _most_to_blame(trace: Trace, run: Run, course: Course, sign: int) -> tuple[Op | None, float]:
    """(an op of the kind and line whose shares add up to most, the median of what they do to the gradient in decades)."""
    changed = shares(run, course)
    kinds: dict[tuple[str, bool], dict[Location | None, list[int]]] = {}
    for index in changed:
        op = run.ops[index]
        layer = is_layer(run, op)
        at = _line_of_layer(trace, run, op) if layer else line_of_op(trace, op)
        kinds.setdefault((op.name, layer), {}).setdefault(at, []).append(index)
    if not kinds:
        return None, 0.0

    def total(indices: Iterable[int]) -> float:
        return sign * sum(changed[i] for i in indices)

    kind = max(kinds.values(), key=lambda lines: total(chain.from_iterable(lines.values())))
    line = max(kind.values(), key=total)
    worst = run.ops[max(line, key=lambda i: sign * changed[i])]
    due = log10(GAINS.get(worst.name, 1.0))
    return worst, median(changed[i] for i in line) - due


def _line_of_layer(trace: Trace, run: Run, op: Op) -> Location | None:
    names = weights_of(run, op)
    parameter = next((p for p in run.parameters if p.name in names), None)
    return line_of_weight(trace, parameter) if parameter is not None else line_of_op(trace, op)


def _weights(trace: Trace, run: Run, course: Course, layer: Op | None) -> Cause:
    """The weights of the way, and of these the line of one layer where it is known which is to blame."""
    op = layer or course.steepest
    width = _width(run, op)
    names = {name for op in course.ops for name in _passed(run, op)} | set(_passed(run, op))
    scales = [s for s in layer_scales(run) if s.parameter.name in names]
    if layer is not None:
        at = _line_of_layer(trace, run, layer)
        scales = [s for s in scales if line_of_weight(trace, s.parameter) == at]
    if not scales:
        place = _line_of_layer(trace, run, op) if is_layer(run, op) else line_of_op(trace, op)
        passed = _through(run, course)
        text = f"the steepest change is at `{op.layer or op.module}`"
        if passed is not None:
            text = f"a layer passes on {10**passed:.2g} of the gradient (median over depth)"
        return Cause(text, op.module or op.layer, op.name, place, width)
    shrinks = course.decades < 0
    extreme = min(s.ratio for s in scales) if shrinks else max(s.ratio for s in scales)
    worst = next(s for s in scales if (s.ratio <= 1.5 * extreme if shrinks else s.ratio >= extreme / 1.5))
    off = [s for s in scales if (s.ratio < 1 if shrinks else s.ratio > 1)]
    gain = median(s.gain for s in off or scales)
    behind_it = worst.nonlinearity.rstrip("_") or "a linear layer"
    text = f"weights have std·√fan_in = {gain:.2g} where {behind_it} wants {worst.wanted:.2f}"
    passed = _through(run, course)
    if passed is not None:
        text += f"; they pass on {10**passed:.2g} of the gradient (median over depth)"
    place = line_of_weight(trace, worst.parameter)
    fix = remedy(worst.nonlinearity)
    return Cause(text, worst.parameter.module, worst.op.name, place, width, [fix])


def _through(run: Run, course: Course) -> float | None:
    """Decades through the weights of a layer, the median over depth."""
    through = []
    for op in course.ops[1:]:
        if is_layer(run, op) and op.outputs:
            read, made = gradient_of(run, data_of(run, op)), run.values[op.outputs[0]].gradient
            if read is not None and made is not None and read.norm > 0 and made.norm > 0:
                through.append(log10(read.norm / made.norm))
    return median(through) if through else None


def _passed(run: Run, op: Op) -> list[str]:
    return weights_of(run, op) if is_layer(run, op) else []


def _width(run: Run, op: Op) -> int:
    value = run.output_of(op)
    if value is None or not value.shape:
        return 0
    return value.shape[value.unit_dim] if value.unit_dim is not None else 0
