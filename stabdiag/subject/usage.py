"""How the file itself uses its model: constructor calls and example tensors in functions and under `__main__`.

That code is read, not run: `Net(784, 10)` and `torch.randn(1, 3, 224, 224)` tell what the author builds and feeds.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from stabdiag.subject.overlay import source_bytes


def tree_of(module: ModuleType) -> ast.Module:
    """The module's syntax tree; an empty one when its source is not at hand."""
    try:
        return ast.parse(source_bytes(Path(inspect.getfile(module))))
    except (OSError, TypeError, SyntaxError, ValueError):
        return ast.Module([], [])


def names_in(node: ast.AST) -> set[str]:
    """All plain names that occur in a piece of code."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def main_block(tree: ast.Module) -> list[ast.stmt]:
    """What stands under `if __name__ == "__main__":`, and in the functions of the file it calls directly."""
    body = [s for node in tree.body if isinstance(node, ast.If) and "__name__" in names_in(node.test) for s in node.body]
    called = set().union(*(names_in(statement) for statement in body)) if body else set()
    return body + [s for f in tree.body if isinstance(f, ast.FunctionDef) and f.name in called for s in f.body]


def constructor_call(module: ModuleType, name: str) -> tuple[list[Any], dict[str, Any], int] | None:
    """Arguments and line of the file's own first call of `name` whose arguments can be told without running it."""
    tree = tree_of(module)
    for scope in _scopes(tree):
        local = _constants(scope, vars(module))
        for node in (n for statement in scope for n in ast.walk(statement)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name):
                continue
            try:
                args = [_evaluate(a, vars(module) | local) for a in node.args]
                kwargs = {k.arg: _evaluate(k.value, vars(module) | local) for k in node.keywords if k.arg}
            except Exception:
                continue
            if len(kwargs) == len(node.keywords) and (args or kwargs):
                return args, kwargs, node.lineno
    return None


def example_shapes(module: ModuleType) -> list[tuple[tuple[int, ...], str, int | None, int]]:
    """Tensors the file makes outside its classes, as (shape, function, high, line); `high` of randint, else None."""
    found = []
    tree = tree_of(module)
    for scope in _scopes(tree):
        known = vars(module) | _constants(scope, vars(module))
        for node in (n for statement in scope for n in ast.walk(statement)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr not in ("randn", "rand", "zeros", "ones", "randint"):
                continue
            try:
                args = [_evaluate(a, known) for a in node.args]
                keywords = {k.arg: _evaluate(k.value, known) for k in node.keywords if k.arg in ("size", "high")}
            except Exception:
                continue
            size = keywords.get("size", args[-1] if args and isinstance(args[-1], list | tuple) else args)
            bounds = [a for a in args if isinstance(a, int)]
            high = keywords.get("high", bounds[-1] if bounds else None) if node.func.attr == "randint" else None
            if size and all(isinstance(n, int) and 0 < n < 1 << 16 for n in size) and math.prod(size) < 1 << 26:
                found.append((tuple(size), node.func.attr, high, node.lineno))
    return found


def _scopes(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    """The main block first, then the module's own statements, then each function; classes are not looked into."""
    yield main_block(tree)
    yield [node for node in tree.body if not isinstance(node, ast.ClassDef | ast.FunctionDef)]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.body


def _constants(scope: list[ast.stmt], known: dict[str, Any]) -> dict[str, Any]:
    local: dict[str, Any] = {}
    for node in (n for statement in scope for n in ast.walk(statement)):
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1):
            continue
        target = node.targets[0]
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=False))
        for place, value in pairs:
            if isinstance(place, ast.Name):
                try:
                    local[place.id] = _evaluate(value, known | local)
                except Exception:
                    local.pop(place.id, None)
    return local


def _evaluate(node: ast.expr, known: dict[str, Any]) -> Any:
    """The value of an expression of constants, names and arithmetic, and of calls of plain classes of the file (a config)."""
    names = {}
    for part in ast.walk(node):
        if isinstance(part, ast.Call):
            called = known[part.func.id] if isinstance(part.func, ast.Name) else None
            if not (inspect.isclass(called) and called.__module__ == known.get("__name__") and _is_plain_class(called)):
                raise ValueError
        elif isinstance(part, ast.Name):
            names[part.id] = known[part.id]
        elif not isinstance(part, _HARMLESS):
            raise ValueError
    return eval(compile(ast.Expression(node), "<usage>", "eval"), {"__builtins__": {}}, names)


def _is_plain_class(kind: type) -> bool:
    return "__init__" not in vars(kind) or hasattr(kind, "__dataclass_fields__")


_HARMLESS = (
    ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.UnaryOp, ast.BinOp, ast.operator, ast.unaryop, ast.expr_context,
    ast.keyword, ast.Attribute,
)  # fmt: skip
