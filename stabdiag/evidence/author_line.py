"""The line an author edits to repair what was measured at an op or at a parameter."""

from __future__ import annotations

from collections.abc import Collection

from stabdiag.trace import Location, Op, Parameter, Trace


def line_of_op(trace: Trace, op: Op) -> Location | None:
    """The line that ran the op where its own module is the author's, else the line that constructed that module.

    An op inside `nn.Sigmoid` or a library's block runs below a line of the author's that says nothing but `self.body(x)`.
    """
    at = op.location
    if at is not None and not at.library and op.module_type in at.function.split("."):
        return at
    return trace.modules.get(op.module) or at or trace.modules.get(op.layer)


def line_of_weight(trace: Trace, parameter: Parameter, blamed: Collection[str] = ()) -> Location | None:
    """The line that gave a parameter its content, else the line that constructed its module.

    A function of the author's that initialises other parameters as well, for other calls than the `blamed` ones, is not what is
    wrong: then it is the line that calls it with these arguments.
    """
    written, caller = parameter.initialised_at, parameter.initialised_for
    if written is not None and caller is not None and blamed and trace.base is not None:
        alike = [p for p in trace.base.parameters if p.initialised_at == written and len(p.shape) == len(parameter.shape)]
        others = {p.initialised_for for p in alike if p.name not in blamed}
        if others and caller not in others:
            return caller
    return written or parameter.made_at or trace.modules.get(parameter.module)
