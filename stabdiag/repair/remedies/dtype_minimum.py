"""Use the smallest number of the tensor's own dtype in a mask.

-1e9 does not exist in float16. `torch.finfo(x.dtype).min` does in every dtype, and its exponential is 0 all the same.
"""

from __future__ import annotations

import libcst as cst

from stabdiag.finding import Finding
from stabdiag.repair.editing.pattern import constant, matches
from stabdiag.repair.editing.rewrite import nearby, replacement
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import number, spell

REPAIRS = ("SD305", "SD002", "SD302", "SD301", "SD403")
KEEPS_FUNCTION = True

_FILLS = ("masked_fill(x, m, c)", "where(m, x, c)", "where(m, c, x)", "full_like(x, c, *any)")
_ADDED = ("x + (1 - m) * c", "x + c * (1 - m)")
_LARGE = 1e4


def edit(source: Source, finding: Finding) -> str | None:
    """Replace the constant of a fill, or an added multiple of it by a fill."""
    marked = source.at(finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        for pattern in (*_FILLS, *_ADDED):
            for match in matches(source, pattern, node):
                value, tensor = constant(source, match.bound["c"]), source.code(match.bound["x"])
                if value is None or not _LARGE <= abs(value) < float("inf"):
                    continue
                limit = spell(source, f"torch.finfo({tensor}.dtype).{'min' if value < 0 else 'max'}")
                if not isinstance(match.bound["x"], cst.Name | cst.Attribute):
                    continue
                if pattern in _ADDED:
                    mask = source.code(match.bound["m"])
                    return source.spliced([replacement(source, match.root, f"{tensor}.masked_fill({mask} == 0, {limit})")])
                return source.replaced((match.bound["c"], limit))
    return _literal(source, finding)


def _literal(source: Source, finding: Finding) -> str | None:
    """A literal without a tensor beside it becomes -inf, which every format holds."""
    at = finding.location
    for node in source.all(cst.UnaryOperation) if at is not None else ():
        value = number(node)
        if (
            at is not None
            and source.line(node) == at.line
            and value is not None
            and value <= -_LARGE
            and value != -float("inf")
        ):
            return source.replaced((node, 'float("-inf")'))
    return None
