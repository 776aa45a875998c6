"""Initialisations where the author wrote them: the statement that writes a parameter is replaced, not followed by another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import libcst as cst

from stabdiag.repair.editing.built import with_imports
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import spell
from stabdiag.trace import Location


def reinitialised(source: Source, places: Mapping[str, Location | None], calls: Mapping[str, str]) -> str | None:
    """The text with other initialisations; None where they are not statements of their own in this file.

    Args:
        source: the user's file.
        places: parameter name -> where its content was last written, for every parameter of the model.
        calls: parameter name -> the call that initialises it, with `{}` where it stands. A line that writes several parameters
            gets the call that most of them want; all of them must want one.
    """
    lines: dict[int, list[str]] = {}
    for name, at in places.items():
        if at is not None and source.path.endswith(at.path):
            lines.setdefault(at.line, []).append(name)
    wanted = {line: names for line, names in lines.items() if any(name in calls for name in names)}
    if {name for names in wanted.values() for name in names} != set(calls) or not calls:
        return None
    splices = []
    for line, names in wanted.items():
        statement = next((s for s in source.all(cst.SimpleStatementLine) if source.line(s) == line), None)
        tensor = _written(source, statement) if statement is not None else None
        if statement is None or tensor is None:
            return None
        call, _ = Counter(calls[name] for name in names).most_common(1)[0]
        splices.append((*source.span(statement.body[0]), spell(source, call.format(source.code(tensor)))))
    text = source.spliced(splices)
    return with_imports(text, list(calls.values())) if text is not None else None


def _written(source: Source, line: cst.SimpleStatementLine) -> cst.BaseExpression | None:
    """The tensor that a statement writes: `x` of `nn.init.normal_(x)`, `x.fill_(0)` and `x.data.fill_(0)`."""
    first = line.body[0]
    if len(line.body) != 1 or not isinstance(first, cst.Expr) or not isinstance(first.value, cst.Call):
        return None
    call = first.value
    if not isinstance(call.func, cst.Attribute) or not call.func.attr.value.endswith("_"):
        return None
    if source.code(call.func.value).endswith("init"):
        return call.args[0].value if call.args else None
    receiver = call.func.value
    if isinstance(receiver, cst.Attribute) and receiver.attr.value == "data":
        receiver = receiver.value
    return receiver if isinstance(receiver, cst.Attribute) else None
