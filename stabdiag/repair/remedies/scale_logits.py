"""Divide the attention scores by the square root of the width.

A dot product of d terms of unit variance has variance d; softmax of it picks one key and passes no gradient on (Vaswani et al.
2017, section 3.2.1).
"""

from __future__ import annotations

import libcst as cst

from stabdiag.finding import Finding
from stabdiag.repair.editing.pattern import matches
from stabdiag.repair.editing.rewrite import nearby, replacement
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD402", "SD404", "SD405", "SD401")
KEEPS_FUNCTION = False

_MASKED = ("{0}", "masked_fill({0}, *any)", "where(m, {0}, *any)", "{0} + m", "masked_fill({0} + m, *any)")


def edit(source: Source, finding: Finding) -> str | None:
    """Scale the product that the softmax is taken of; a query that has no name gets one."""
    marked = source.at(finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        for form in _MASKED:
            for match in matches(source, f"softmax({form.format('q @ k')}, ...)", node):
                return _scaled(source, match.bound["q"])
    return None


def _scaled(source: Source, query: cst.BaseExpression) -> str | None:
    product = source.parents[query]
    width = "shape[-1] ** -0.5"
    if isinstance(query, cst.Name):
        if isinstance(product, cst.BinaryOperation):
            return source.spliced([replacement(source, product, f"{source.code(product)} * {query.value}.{width}")])
        return source.replaced((query, f"{query.value} * {query.value}.{width}"))
    line = source.statement(query)
    if line is None or not isinstance(product, cst.BinaryOperation):
        return None
    name = next(n for n in ("query", "queries", "scaled_query") if not source.named(n))
    outer = source.code(product).replace(source.code(query), name, 1)
    lines = source.before(line, [f"{name} = {source.code(query)}"])
    return source.spliced([lines, replacement(source, product, f"{outer} * {name}.{width}")])
