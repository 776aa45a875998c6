"""The line an author edits to repair what was measured at an op or at a parameter."""

from __future__ import annotations

from stabdiag.trace import Location, Op, Parameter, Trace


def line_of_op(trace: Trace, op: Op) -> Location | None:
    """The line that ran the op where its own module is the author's, else the line that constructed that module.

    An op inside `nn.Sigmoid` or a library's block runs below a line of the author's that says nothing but `self.body(x)`.
    """
    at = op.location
    if at is not None and not at.library and op.module_type in at.function.split("."):
        return at
    return trace.modules.get(op.module) or at or trace.modules.get(op.layer)


def line_of_weight(trace: Trace, parameter: Parameter) -> Location | None:
    """The line that gave a parameter its content, else the line that constructed its module."""
    return parameter.initialised_at or parameter.made_at or trace.modules.get(parameter.module)
