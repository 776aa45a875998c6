"""Keep rotary frequencies and phases in float32.

A phase is position times frequency, up to thousands of radians; rounded to bfloat16 it is wrong by whole turns. A buffer is
cast together with the model, a plain attribute is not; cosine and sine are cast when they are finished.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from stabdiag.finding import Finding
from stabdiag.repair.editing import flow
from stabdiag.repair.editing.rewrite import nearby
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD501", "SD305", "SD502")
KEEPS_FUNCTION = True


def edit(source: Source, finding: Finding) -> str | None:
    """Take the buffer that the phases are made of out of what `model.to(dtype)` casts."""
    marked = source.at(finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        for part in _parts(source, node):
            owner = source.around(part, cst.ClassDef)
            for call in source.all(cst.Call):
                if not _registers(call, part.attr.value):
                    continue
                if source.around(call, cst.ClassDef) is owner and len(call.args) > 1:
                    value = source.code(call.args[1].value)
                    moved = [(use, f"{source.code(use)}.to({x}.device)") for use, x in _uses(source, part, owner)]
                    return source.replaced((call, f"self.{part.attr.value} = {value}"), *moved)
    return None


def _uses(source: Source, part: cst.Attribute, owner: cst.ClassDef | None) -> Iterator[tuple[cst.Attribute, str]]:
    """Where the methods of the class read the attribute, and their first argument: a plain attribute stays on its device."""
    for use in source.all(cst.Attribute, part.deep_equals):
        method = source.around(use, cst.FunctionDef)
        if method is None or source.around(use, cst.ClassDef) is not owner or method.name.value == "__init__":
            continue
        arguments = [p.name.value for p in method.params.params if p.name.value != "self"]
        if arguments:
            yield use, arguments[0]


def _parts(source: Source, node: cst.BaseExpression) -> list[cst.Attribute]:
    """The attributes of self in an expression and in what its names were assigned."""
    start, end = source.span(node)
    found = source.all(cst.Attribute, lambda a: start <= source.span(a)[0] < end and _is_own(a))
    for name in flow.names_in(source, node):
        assign = flow.assignment(source, name)
        if assign is not None:
            found += _parts(source, assign.value)
    return found


def _is_own(node: cst.Attribute) -> bool:
    return isinstance(node.value, cst.Name) and node.value.value == "self"


def _registers(call: cst.Call, name: str) -> bool:
    if not (isinstance(call.func, cst.Attribute) and call.func.attr.value == "register_buffer" and call.args):
        return False
    said = call.args[0].value
    return isinstance(said, cst.SimpleString) and said.evaluated_value == name
