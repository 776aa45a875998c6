"""Why a gradient changes from layer to layer: the share of the weights and the share of what lies between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log10
from statistics import median

from stabdiag.evidence.author_line import line_of_op, line_of_weight
from stabdiag.evidence.depth import Course, data_of, gradient_of, weights_of
from stabdiag.evidence.graph import is_layer
from stabdiag.evidence.initialisation import behind, layer_scales, remedy
from stabdiag.finding import Fix
from stabdiag.trace import Location, Op, Run, Trace

# An activation of unit gain keeps 0.5 (He-scaled ReLU: √½ in norm) to 1 of the gradient; sigmoid keeps at most 0.25.
ACTIVATION_KEEPS = log10(0.4)


@dataclass(frozen=True)
class Cause:
    """Where a gradient is lost or blown up, and the edit for it.

    Attributes:
        text: one clause with the measured fact.
        module, op, location: the place to edit; width: units of the layer there, 0 if unknown.
    """

    text: str
    module: str
    op: str
    location: Location | None
    width: int = 0
    fixes: list[Fix] = field(default_factory=list)


def cause_of_loss(trace: Trace, run: Run, course: Course) -> Cause:
    """The activation between the layers where it keeps less than 40 % of the gradient, else the weights."""
    weights, between = _shares(run, course)
    width = _width(run, course.steepest)
    nonlinearity = _common_nonlinearity(run, course)
    if (
        nonlinearity is not None
        and between is not None
        and between < ACTIVATION_KEEPS
        and (weights is None or between < weights)
    ):
        name = nonlinearity.name.rstrip("_")
        fix = Fix("replace-activation", f"use an activation that does not saturate instead of {name}", "nn.GELU()")
        text = f"`{name}` keeps {10**between:.2g} of the gradient (median over depth)"
        return Cause(text, nonlinearity.module, nonlinearity.name, line_of_op(trace, nonlinearity), width, [fix])
    return _weights(trace, run, course, weights, width)


def cause_of_growth(trace: Trace, run: Run, course: Course) -> Cause:
    """The additions of a residual stream, else the weights."""
    streams = [op for op in course.ops if not is_layer(run, op)]
    if len(streams) > len(course.ops) / 2:
        op = course.steepest if course.steepest in streams else streams[0]
        text = f"{len(streams)} branches add to the stream and each multiplies its gradient by {10**-course.slope:.2g}"
        fix = Fix("scale-branches", "scale each branch by 1/√(2N)", f"x = x + block(x) * {(2 * len(streams)) ** -0.5:.3f}")
        return Cause(text, op.module, op.name, line_of_op(trace, op), _width(run, op), [fix])
    weights, _ = _shares(run, course)
    return _weights(trace, run, course, weights, _width(run, course.steepest))


def _weights(trace: Trace, run: Run, course: Course, share: float | None, width: int) -> Cause:
    names = {name for op in course.ops for name in _passed(run, op)}
    scales = [s for s in layer_scales(run) if s.parameter.name in names]
    op = course.steepest
    if not scales:
        return Cause(
            f"the steepest change is at `{op.layer or op.module}`", op.module or op.layer, op.name, line_of_op(trace, op), width
        )
    shrinks = course.decades < 0
    extreme = min(s.ratio for s in scales) if shrinks else max(s.ratio for s in scales)
    worst = next(s for s in scales if (s.ratio <= 1.5 * extreme if shrinks else s.ratio >= extreme / 1.5))
    off = [s for s in scales if (s.ratio < 1 if shrinks else s.ratio > 1)]
    gain = median(s.gain for s in off or scales)
    behind_it = worst.nonlinearity.rstrip("_") or "a linear layer"
    text = f"weights have std·√fan_in = {gain:.2g} where {behind_it} wants {worst.wanted:.2f}"
    if share is not None:
        text += f"; they pass on {10**share:.2g} of the gradient (median over depth)"
    place = line_of_weight(trace, worst.parameter)
    fix = remedy(worst.parameter.name, worst.nonlinearity)
    return Cause(text, worst.parameter.module, worst.op.name, place, width, [fix])


def _shares(run: Run, course: Course) -> tuple[float | None, float | None]:
    """(decades through the weights, decades between one layer's result and the next layer's input), medians over depth."""
    through, between = [], []
    for before, op in zip(course.ops, course.ops[1:], strict=False):
        if not (is_layer(run, op) and op.outputs):
            continue
        read = gradient_of(run, data_of(run, op))
        behind_it, in_front = run.values[op.outputs[0]].gradient, run.values[before.outputs[0]].gradient
        if (
            read is None
            or behind_it is None
            or in_front is None
            or not (read.norm > 0 and behind_it.norm > 0 and in_front.norm > 0)
        ):
            continue
        through.append(log10(read.norm / behind_it.norm))
        between.append(log10(in_front.norm / read.norm))
    return (median(through), median(between)) if through else (None, None)


def _passed(run: Run, op: Op) -> list[str]:
    return weights_of(run, op) if is_layer(run, op) else []


def _common_nonlinearity(run: Run, course: Course) -> Op | None:
    """The nonlinearity behind the layer at the steepest step."""
    op = course.steepest
    wanted, _ = behind(run, op)
    if not wanted:
        return _first_reader(run, op)
    return next((o for o in run.phase("forward") if o.name == wanted and o.index > op.index), None)


def _first_reader(run: Run, op: Op) -> Op | None:
    front = list(op.outputs[:1])
    while front:
        for reader in run.consumers(front.pop(0)):
            if reader.phase == "forward" and not is_layer(run, reader):
                if not reader.view:
                    return reader
                front.extend(reader.outputs[:1])
    return None


def _width(run: Run, op: Op) -> int:
    value = run.output_of(op)
    if value is None or not value.shape:
        return 0
    return value.shape[value.unit_dim] if value.unit_dim is not None else 0
