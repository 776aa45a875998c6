"""The line an author edits to repair what was measured at an op or at a parameter."""

from __future__ import annotations

from stabdiag.trace import Location, Op, Parameter, Trace


def line_of_op(trace: Trace, op: Op) -> Location | None:
    """The line that ran the op where its own module is the author's, else the line that constructed that module.

    An op inside `nn.Sigmoid` or a library's block runs below a line of the author's that says nothing but `self.body(x)`. An op
    in a function that the author's module calls runs below the line that says what is done.
    """
    at = op.location
    if at is not None and not at.library and op.module_type in _authors(trace):
        return at
    return trace.modules.get(op.module) or at or trace.modules.get(op.layer)


def line_of_weight(trace: Trace, parameter: Parameter) -> Location | None:
    """The line that gave a parameter its content, else the line that constructed its module."""
    return parameter.initialised_at or parameter.made_at or trace.modules.get(parameter.module)


def _authors(trace: Trace) -> set[str]:
    """Classes of modules that ran an op in a method of their own."""
    cached: set[str] | None = trace.__dict__.get("_authors")
    if cached is None:
        ops = trace.base.ops if trace.base is not None else []
        ran = ((op.module_type, op.location.function) for op in ops if op.location is not None and not op.location.library)
        cached = trace.__dict__["_authors"] = {kind for kind, function in ran if kind in function.split(".")}
    return cached
