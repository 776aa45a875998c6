"""Changes to what `example_inputs` returns, as the author would make them to the data."""

from __future__ import annotations

from collections.abc import Callable

import libcst as cst

from stabdiag.repair.editing import flow
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import head


def prepared(source: Source, prepare: Callable[[str], str]) -> str | None:
    """The text with the first tensor that `example_inputs` returns passed through an expression.

    Args:
        source: the file.
        prepare: gives the expression for a name.

    None when there is no such function, it returns no tensor by name or expression, or it is prepared already.
    """
    function = next((f for f in source.tree.body if isinstance(f, cst.FunctionDef) and f.name.value == "example_inputs"), None)
    returns = source.all(cst.Return, lambda r: source.around(r, cst.FunctionDef) is function) if function is not None else []
    if len(returns) != 1 or returns[0].value is None:
        return None
    tensor, line = _first(returns[0].value), source.statement(returns[0])
    if tensor is None or line is None or _is_integer(source, tensor):
        return None
    name = (
        tensor.value
        if isinstance(tensor, cst.Name)
        else next(n for n in ("x", "data", "inputs") if not _inside(source, n, function))
    )
    step = f"{name} = {prepare(name)}"
    if step in source.text:
        return None
    if isinstance(tensor, cst.Name):
        return source.spliced([source.before(line, [step])])
    return source.spliced([source.before(line, [f"{name} = {source.code(tensor)}", step]), (*source.span(tensor), name)])


def _first(value: cst.BaseExpression) -> cst.BaseExpression | None:
    if isinstance(value, cst.Tuple | cst.List):
        return _first(value.elements[0].value) if value.elements else None
    if isinstance(value, cst.Dict):
        return _first(value.elements[0].value) if value.elements else None
    return value if isinstance(value, cst.Name | cst.Call | cst.BinaryOperation | cst.Subscript) else None


def _is_integer(source: Source, tensor: cst.BaseExpression) -> bool:
    """Whether the text says that a tensor holds integers, such as token ids."""
    assign = flow.assignment(source, tensor) if isinstance(tensor, cst.Name) else None
    made = head(source, assign.value if assign is not None else tensor)
    return made is not None and made.op in ("long", "int", "arange", "randperm", "randint")


def _inside(source: Source, name: str, function: cst.FunctionDef | None) -> bool:
    return any(source.around(n, cst.FunctionDef) is function for n in source.named(name))
