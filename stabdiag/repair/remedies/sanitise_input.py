"""Make the operand harmless before the where.

`where(c, f(x), 0)` takes the other value where f is not defined, but the gradient of f is computed there all the same, and
0 · inf is NaN. With a harmless operand in those places it is 0.
"""

from __future__ import annotations

import libcst as cst

from stabdiag.finding import Finding
from stabdiag.repair.editing import flow
from stabdiag.repair.editing.rewrite import outwards
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import Head, head, spell

REPAIRS = ("SD607", "SD102", "SD301", "SD606", "SD608")
KEEPS_FUNCTION = True

_LAST = frozenset(["div"])  # ops that are singular in their last operand; all others in their first


def edit(source: Source, finding: Finding) -> str | None:
    """Put a second where around the operand of the op that the finding marks."""
    marked = source.at(finding.location)
    if marked is None:
        return None
    for node in (marked, *outwards(source, marked)):
        made = head(source, node)
        if made is None or made.op in ("where", "neg", "mul", "add", "sub"):
            continue
        chosen = _where(source, node)
        if chosen is None or not made.operands:
            continue
        where, first = chosen
        operand = made.operands[-1 if made.op in _LAST else 0]
        if (inner := head(source, operand)) is not None and inner.op == "where":
            return None
        condition, value = source.code(where.operands[0]), source.code(operand)
        branches = f"{value}, 1.0" if first else f"1.0, {value}"
        return source.replaced((operand, spell(source, f"torch.where({condition}, {branches})")))
    return None


def _where(source: Source, node: cst.BaseExpression) -> tuple[Head, bool] | None:
    """The where that selects an expression, directly or by name, and whether it is its first branch."""
    places: list[cst.CSTNode] = [node]
    statement = next((a for a in source.ancestors(node) if isinstance(a, cst.BaseSmallStatement)), None)
    if isinstance(statement, cst.Assign) and isinstance(statement.targets[0].target, cst.Name):
        places += flow.uses(source, statement)
    for place in places:
        for above in (place, *outwards(source, place)):
            made = head(source, above) if isinstance(above, cst.BaseExpression) else None
            if made is not None and made.op == "where" and len(made.operands) == 3:
                at = source.span(place)[0]
                for i in (1, 2):
                    start, end = source.span(made.operands[i])
                    if start <= at < end:
                        return made, i == 1
    return None
