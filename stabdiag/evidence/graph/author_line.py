"""The line an author edits to repair what was measured at an op or at a parameter."""

from __future__ import annotations

from math import log2, sqrt

from stabdiag.trace import Location, Op, Parameter, Trace
from stabdiag.trace.derived import derived


def line_of_op(trace: Trace, op: Op) -> Location | None:
    """The line that ran the op where its own module is the author's, else the line that constructed that module.

    An op inside `nn.Sigmoid` or a library's block runs below a line of the author's that says nothing but `self.body(x)`. An op
    in a function that the author's module calls runs below the line that says what is done.
    """
    at = op.location
    if at is not None and not at.library and op.module_type in _authors(trace):
        return at
    return trace.modules.get(op.module) or at or trace.modules.get(op.layer)


def line_of_weight(trace: Trace, parameter: Parameter, *, by_call: bool = False) -> Location | None:
    """The line that gave a parameter its content, else the line that constructed its module.

    With `by_call`, a function of the author's that made something else of every other parameter it wrote is not what is wrong:
    then it is the line that called it with these arguments.
    """
    written, caller = parameter.initialised_at, parameter.initialised_for
    if by_call and written is not None and caller is not None and trace.base is not None:
        others = [p for p in trace.base.parameters if p.initialised_at == written and len(p.shape) == len(parameter.shape)]
        elsewhere = [p for p in others if p.initialised_for != caller]
        if elsewhere and all(_differ(p, parameter) for p in elsewhere):
            return caller
    return written or parameter.made_at or trace.modules.get(parameter.module)


def _differ(one: Parameter, other: Parameter) -> bool:
    """Whether two parameters were drawn from different distributions: one leans to one side, or their sizes are more than a
    factor 2 apart, both as numbers and for their numbers of inputs."""
    a, b = one.stats, other.stats
    if a is None or b is None or not a.sampled or not b.sampled:
        return False
    if not a.rms or not b.rms:
        return a.rms != b.rms
    inputs = (one.fan_in or 1) / (other.fan_in or 1)
    apart = [abs(log2(a.rms / b.rms * factor)) for factor in (1.0, sqrt(inputs))]
    return abs(a.mean / a.rms - b.mean / b.rms) > 0.5 or min(apart) > 1


@derived
def _authors(trace: Trace) -> set[str]:
    """Classes of modules that ran an op in a method of their own."""
    ops = trace.base.ops if trace.base is not None else []
    ran = ((op.module_type, op.location.function) for op in ops if op.location is not None and not op.location.library)
    return {kind for kind, function in ran if kind in function.split(".")}
