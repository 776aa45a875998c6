"""Epsilons that the author wrote and a format loses: replaced by what the data and the formats leave room for."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import libcst as cst

from stabdiag.repair.editing import flow
from stabdiag.repair.editing.pattern import is_epsilon
from stabdiag.repair.editing.rewrite import Rule, nearby, rewrite
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import number
from stabdiag.repair.margins import DIVISIONS, LOGARITHMS, as_code, formats_of, guard, operands_at
from stabdiag.repair.remedy import Case, Edit, Remedy

_WITH_EPSILON = (*LOGARITHMS, "sqrt", "rsqrt", "pow", *DIVISIONS)


def _absorbed_rules(least: str) -> list[Rule]:
    return [(form, f"(1 - p).clamp_min({least})") for form in ("eps + 1 - p", "1 + eps - p", "1 - p + eps")]


def _stable_epsilon(source: Source, case: Case) -> str | None:
    """1e-8 + 1 - p is 1 - p: clamp 1 - p instead of adding the epsilon to it."""
    constant = guard(1.0, formats_of(case))
    return rewrite(source, case.finding.location, _absorbed_rules(as_code(constant))) if constant is not None else None


def _larger_epsilon(source: Source, case: Case) -> str | None:
    """Change the literal where it stands: in the expression, as a name's or argument's default, or in a constructor's call."""
    marked = source.at(case.finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        if not isinstance(node, cst.BaseNumber | cst.Name | cst.Attribute) or not is_epsilon(source, node):
            continue
        literals = {id(n): n for n in _literals(source, node) if (number(n) or 0.0) > 0}
        largest = max((number(n) or 0.0 for n in literals.values()), default=0.0)
        guarded = operands_at(case, _WITH_EPSILON, -1)
        enough = guard(min((o.smallest_above(2 * largest) for o in guarded), default=inf), formats_of(case))
        if literals and enough is not None and largest < enough:
            return source.replaced(*((n, as_code(enough)) for n in literals.values()))
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
                elements = zip(target.target.elements, assign.value.elements, strict=False)
                pairs = [(left.value, right.value) for left, right in elements]
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
    if (assign := flow.of_file(source, name.value)) is not None:
        yield assign.value


REMEDIES = (
    Remedy(
        "larger-epsilon",
        "Use an epsilon that the format holds",
        Edit(_larger_epsilon),
        "1e-8 is 0 in float16, whose smallest number is 6e-8, and next to 1 it is lost in every 16-bit format.",
        keeps_function=True,
    ),
    Remedy(
        "stable-form",
        "Add the epsilon where the value is small",
        Edit(_stable_epsilon),
        "1e-8 + 1 - p is 1 - p: next to 1 the epsilon is lost. (1 - p) clamped from below is not.",
        keeps_function=True,
    ),
)
