"""How a training step takes its batch apart, read from its code: a tuple, a dict with these keys, or one tensor."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Structure = Callable[[Sequence[Any]], Any]
"""Builds a batch from its leaves, inputs first. Leaves that are missing repeat the last one."""


def structure_of(owner: type, method: str) -> tuple[int, Structure]:
    """The batch that a method's first argument is: how many leaves it has, and how they are put together."""
    shape = _shape(owner, method, 0, set())
    count = len(list(_leaves(shape)))
    return count, lambda leaves: _filled(shape, iter([*leaves, *[leaves[-1]] * count]))


def _shape(owner: type, method: str, position: int, seen: set[str]) -> Any:
    """None for a single tensor, a tuple of shapes, or a dict of shapes by key."""
    function = _definition(owner, method)
    if function is None or method in seen:
        return None
    names = [argument.arg for argument in function.args.args][1:]
    if position >= len(names):
        return None
    batch = names[position]
    keys: dict[str, None] = {}
    indices: list[int] = []
    reads = [n for n in ast.walk(function) if isinstance(n, ast.Assign | ast.Subscript) and _is(n.value, batch)]
    for read in sorted(reads, key=_position):
        if isinstance(read, ast.Assign):
            for target in read.targets:
                if isinstance(target, ast.Tuple | ast.List):
                    return _of_target(target)
        elif isinstance(read.slice, ast.Constant):
            if isinstance(read.slice.value, str):
                keys[read.slice.value] = None
            elif isinstance(read.slice.value, int):
                indices.append(read.slice.value)
    if keys:
        return dict.fromkeys(keys)
    if indices:
        return (None,) * (max(indices) + 1)
    for node in ast.walk(function):  # handed on to another method of the same class
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Call) and isinstance(called, ast.Attribute) and _is(called.value, "self"):
            for index, argument in enumerate(node.args):
                if _is(argument, batch):
                    return _shape(owner, called.attr, index, seen | {method})
    return None


def _definition(owner: type, method: str) -> ast.FunctionDef | None:
    try:
        source = textwrap.dedent(inspect.getsource(inspect.getattr_static(owner, method)))
        node = ast.parse(source).body[0]
    except (AttributeError, OSError, TypeError, SyntaxError):
        return None
    return node if isinstance(node, ast.FunctionDef) else None


def _position(node: ast.stmt | ast.expr) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _is(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _of_target(node: ast.expr) -> Any:
    return tuple(_of_target(inner) for inner in node.elts) if isinstance(node, ast.Tuple | ast.List) else None


def _leaves(shape: Any) -> Iterator[None]:
    if shape is None:
        yield None
        return
    for inner in shape.values() if isinstance(shape, dict) else shape:
        yield from _leaves(inner)


def _filled(shape: Any, leaves: Iterator[Any]) -> Any:
    if shape is None:
        return next(leaves)
    if isinstance(shape, dict):
        return {key: _filled(inner, leaves) for key, inner in shape.items()}
    return tuple(_filled(inner, leaves) for inner in shape)
