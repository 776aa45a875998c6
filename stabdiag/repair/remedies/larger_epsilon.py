"""Use an epsilon that the format holds.

1e-8 is 0 in float16, whose smallest number is 6e-8, and next to 1 it is lost in every 16-bit format. 1e-4 is held by all of
them, and so is its reciprocal.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from stabdiag.finding import Finding
from stabdiag.repair.editing import flow
from stabdiag.repair.editing.pattern import is_epsilon
from stabdiag.repair.editing.rewrite import nearby
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import number

REPAIRS = ("SD505", "SD608", "SD606", "SD301")
KEEPS_FUNCTION = False

_ENOUGH = 1e-4


def edit(source: Source, finding: Finding) -> str | None:
    """Change the literal where it stands: in the expression, as a name's or argument's default, or in a constructor's call."""
    marked = source.at(finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        if isinstance(node, cst.BaseNumber | cst.Name | cst.Attribute) and is_epsilon(source, node):
            literals = {id(n): n for n in _literals(source, node) if 0 < (number(n) or 0.0) < _ENOUGH}
            if literals:
                return source.replaced(*((n, "1e-4") for n in literals.values()))
    return None


def _literals(source: Source, node: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    """The literals that an expression may have its value from."""
    if number(node) is not None:
        yield node
    elif isinstance(node, cst.Name):
        assign = flow.assignment(source, node)
        if assign is not None:
            yield from _literals(source, assign.value)
        else:
            yield from _of_argument(source, node)
    elif isinstance(node, cst.Attribute):
        for value in _of_attribute(source, node.attr.value):
            yield from _literals(source, value)


def _of_attribute(source: Source, name: str) -> Iterator[cst.BaseExpression]:
    for assign in source.all(cst.Assign):
        for target in assign.targets:
            pairs: list[tuple[cst.CSTNode, cst.BaseExpression]] = [(target.target, assign.value)]
            if isinstance(target.target, cst.Tuple) and isinstance(assign.value, cst.Tuple):
                pairs = list(
                    zip((e.value for e in target.target.elements), (e.value for e in assign.value.elements), strict=False)
                )
            for made, value in pairs:
                if isinstance(made, cst.Attribute) and made.attr.value == name:
                    yield value


def _of_argument(source: Source, name: cst.Name) -> Iterator[cst.BaseExpression]:
    """The default of an argument, and what calls in the file give for it by name; for a name of the file, its assignment."""
    function = source.around(name, cst.FunctionDef)
    for param in (*function.params.params, *function.params.kwonly_params) if function is not None else ():
        if param.name.value == name.value:
            if param.default is not None:
                yield param.default
            for arg in source.all(cst.Arg, lambda a: a.keyword is not None and a.keyword.value == name.value):
                if number(arg.value) is not None:
                    yield arg.value
            return
    for line in source.tree.body:
        for small in line.body if isinstance(line, cst.SimpleStatementLine) else ():
            if (
                isinstance(small, cst.Assign)
                and isinstance(target := small.targets[0].target, cst.Name)
                and target.value == name.value
            ):
                yield small.value
