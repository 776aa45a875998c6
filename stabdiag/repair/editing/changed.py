"""What an edit made of a text: the statements that are new or different, as they stand in the edited file."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher

import libcst as cst

from stabdiag.repair.editing.source import Source


def changed_statements(before: str, after: str) -> str:
    """The statements of `after` that are not in `before`, whole ones, without their common indentation.

    Imports that an edit brings along are left out. A compound statement shows its first line where only that changed.
    """
    source = Source("", after)
    different = _different(before.splitlines(), after.splitlines())
    blocks: list[list[str]] = []
    last = 0
    for first, end in _statements(source, different):
        lines = [line.rstrip() for line in source.lines[first - 1 : end]]
        indent = len(lines[0]) - len(lines[0].lstrip())
        block = blocks[-1] if blocks else []
        outer = len(block[0]) - len(block[0].lstrip()) if block else 0
        if block and first == last + 1 and indent >= outer:
            block += lines
        else:
            blocks.append(lines)
        last = end
    return "\n".join(line for block in blocks for line in _flush(block))


def changed_functions(before: str, after: str) -> set[str]:
    """Names of the functions and methods, nested ones included, whose code an edit changed."""
    old, new = _functions(before), _functions(after)
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def _functions(text: str) -> dict[str, list[str]]:
    source = Source("", text)
    found: dict[str, list[str]] = {}
    for function in source.all(cst.FunctionDef):
        found.setdefault(function.name.value, []).append(source.code(function))
    return found


def changed_lines(before: str, after: str) -> set[int]:
    """Numbers of the lines of `after` that an edit inserted or replaced, from 1."""
    return _different(before.splitlines(), after.splitlines())


def _different(before: list[str], after: list[str]) -> set[int]:
    """Numbers of the lines of `after` that were inserted or replaced, from 1."""
    changes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return {n + 1 for kind, _, _, first, end in changes if kind != "equal" for n in range(first, end) if after[n].strip()}


def _statements(source: Source, different: set[int]) -> Iterator[tuple[int, int]]:
    """First and last line of every simple statement and compound header with a changed line."""
    found: list[tuple[int, int]] = []
    for node, at in source.positions.items():
        if isinstance(node, cst.SimpleStatementLine):
            if isinstance(node.body[0], cst.Import | cst.ImportFrom):
                continue
            first, end = at.start.line, at.end.line
        elif isinstance(node, cst.BaseCompoundStatement):
            one_line = isinstance(node.body, cst.SimpleStatementSuite)
            first, end = at.start.line, at.end.line if one_line else _header_end(source, node)
        else:
            continue
        if different & set(range(first, end + 1)):
            found.append((first, end))
    yield from sorted(set(found))


def _header_end(source: Source, node: cst.BaseCompoundStatement) -> int:
    """The last line of `for … in …:` and its like."""
    body = node.body.body
    first = min((source.line(statement) for statement in body), default=source.line(node) + 1)
    line = first - 1
    while line > source.line(node) and source.lines[line - 1].strip()[:1] in ("", "#"):
        line -= 1
    return line


def _flush(block: list[str]) -> list[str]:
    indent = len(block[0]) - len(block[0].lstrip())
    return [line[indent:] for line in block]
