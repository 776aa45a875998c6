"""The author's own words for an expression, read from the source text of its line."""

from __future__ import annotations

import ast

from stabdiag.trace import Location

_NAMESPACES = ("torch", "F", "nn", "np", "math", "functional", "special")


def argument(location: Location | None) -> str | None:
    """What an op is given: `p` of `torch.log(p)`, `z` of `z.exp()`, the denominator of a division; None if unknown."""
    node = _expression(location)
    if isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Attribute) and not _is_namespace(function.value):
            return ast.unparse(function.value)
        return ast.unparse(node.args[0]) if node.args else None
    if isinstance(node, ast.BinOp):
        return ast.unparse(node.left if isinstance(node.op, ast.Pow) else node.right)
    return None


def dimension(location: Location | None, default: int | None = None) -> str:
    """The `dim` of a call as written, else the recorded one."""
    node = _expression(location)
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg in ("dim", "axis"):
                return ast.unparse(keyword.value)
    return "-1" if default is None else str(default)


def written(location: Location | None) -> str | None:
    """The whole expression as written; None if it is not on one line."""
    node = _expression(location)
    return None if node is None else ast.unparse(node)


def _expression(location: Location | None) -> ast.expr | None:
    if location is None or location.column is None or location.end_column is None:
        return None
    text = location.source.encode()[location.column : location.end_column].decode(errors="replace")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None


def _is_namespace(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute):
        return _is_namespace(node.value)
    return isinstance(node, ast.Name) and node.id in _NAMESPACES
