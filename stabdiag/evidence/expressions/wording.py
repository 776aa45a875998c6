"""The author's own words for an expression, read from the source text of its line."""

from __future__ import annotations

import ast

from stabdiag.trace import Location, Op

_NAMESPACES = ("torch", "F", "nn", "np", "math", "functional", "special")


def argument(op: Op | None) -> str | None:
    """What an op is given: `p` of `torch.log(p)`, `z` of `z.exp()`, the denominator of a division.

    None where the line does not name the op, because a library function called on it runs it, or spans several lines.
    """
    node = _expression(op.location) if op is not None else None
    name = op.name.strip("_").split("_")[0] if op is not None else ""
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Pow):
            return ast.unparse(node.left) if name in ("pow", "sqrt") else None
        return ast.unparse(node.right) if isinstance(node.op, ast.Div) and name in ("div", "reciprocal") else None
    if not isinstance(node, ast.Call) or name not in _callee(node.func).lower():
        return None
    if isinstance(node.func, ast.Attribute) and not _is_namespace(node.func.value) and not _is_module(node.func):
        return ast.unparse(node.func.value)
    return ast.unparse(node.args[0]) if node.args else None


def _expression(location: Location | None) -> ast.expr | None:
    if location is None or location.column is None or location.end_column is None:
        return None
    text = location.source.encode()[location.column : location.end_column].decode(errors="replace")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None


def _callee(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return _callee(node.func) if isinstance(node, ast.Call) else getattr(node, "id", "")


def _is_module(node: ast.Attribute) -> bool:
    """`self.softmax(z)` calls a module."""
    return isinstance(node.value, ast.Name) and node.value.id == "self"


def _is_namespace(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute):
        return _is_namespace(node.value)
    return isinstance(node, ast.Name) and node.id in _NAMESPACES
