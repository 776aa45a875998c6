"""Code to suggest, in the author's own names: the expression at a source location and its operands, as text."""

from __future__ import annotations

import ast

from stabdiag.trace import Location, Op


def operands(at: Location | None) -> list[str]:
    """The operands of the expression at a location: arguments of a call (the receiver of a method first), both sides of a
    binary operator. Empty when the line does not hold the whole expression."""
    found = _expression(at)
    if isinstance(found, ast.BinOp):
        return [ast.unparse(found.left), ast.unparse(found.right)]
    if isinstance(found, ast.UnaryOp):
        return [ast.unparse(found.operand)]
    if isinstance(found, ast.Call):
        method = isinstance(found.func, ast.Attribute) and not _is_module(found.func.value)
        receiver = [ast.unparse(found.func.value)] if method and isinstance(found.func, ast.Attribute) else []
        return receiver + [ast.unparse(a) for a in found.args]
    return []


def expression(at: Location | None, default: str) -> str:
    """The source text of the expression at a location, or a default."""
    found = _expression(at)
    return ast.unparse(found) if found is not None else default


def operand(at: Location | None, default: str, index: int = 0) -> str:
    """One operand as text, bracketed where a method call behind it would bind tighter; a default when it is unknown."""
    found = operands(at)
    if index >= len(found):
        return default
    text = found[index]
    simple = isinstance(ast.parse(text, mode="eval").body, ast.Name | ast.Attribute | ast.Call | ast.Subscript)
    return text if simple else f"({text})"


def is_product(at: Location | None) -> bool:
    """Whether the expression is a matrix product of two named factors."""
    found = _expression(at)
    if isinstance(found, ast.Call):
        return isinstance(found.func, ast.Attribute) and found.func.attr in ("matmul", "bmm", "mm")
    return isinstance(found, ast.BinOp) and isinstance(found.op, ast.MatMult)


def in_float32(op: Op) -> str:
    """The op's expression as a float32 island."""
    found = _expression(op.location)
    if found is None or any(isinstance(n, ast.Name) and n.id == "self" for n in ast.walk(found)):
        return f'model.get_submodule("{op.module}").float()' if op.module else f"{op.name}(x.float())"
    names = sorted({n.id for n in ast.walk(found) if isinstance(n, ast.Name)} - {"self", "torch", "F", "nn", "math", "np"})
    text = ast.unparse(found)
    for name in names:
        text = _with_float(text, name)
    return text


def _with_float(text: str, name: str) -> str:
    class Upcast(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            return ast.parse(f"{name}.float()", mode="eval").body if node.id == name else node

    return ast.unparse(Upcast().visit(ast.parse(text, mode="eval")))


def _expression(at: Location | None) -> ast.expr | None:
    if at is None or at.column is None or at.end_column is None or at.library:
        return None
    text = at.source.encode()[at.column : at.end_column].decode(errors="ignore")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return None


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("torch", "F", "nn", "math", "np")
