"""A source file as a tree with positions: find the expression a finding is about, replace it, keep everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import unified_diff
from typing import TypeVar

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

from stabdiag.trace import Location

Node = TypeVar("Node", bound=cst.CSTNode)


@dataclass
class Source:
    """A parsed file. `text` is exactly what was read, line endings included."""

    path: str
    text: str

    def __post_init__(self) -> None:
        self.wrapper = MetadataWrapper(cst.parse_module(self.text), unsafe_skip_copy=True)
        self.tree = self.wrapper.module
        self.positions = self.wrapper.resolve(PositionProvider)

    def at(self, location: Location | None, kind: type[Node], accept: Callable[[Node], bool] = lambda node: True) -> Node | None:
        """The node of a kind that a location marks: the smallest accepted one that covers its start, else the first on its line.

        Lines count from 1, columns from 0. None when there is none, or the location is in another file.
        """
        if location is None or not self.path.endswith(location.path):
            return None
        found: list[tuple[int, cst.CSTNode]] = []
        column = location.column or 0
        for node, span in self.positions.items():
            if not isinstance(node, kind) or not accept(node):
                continue
            start, end = span.start, span.end
            if not start.line <= location.line <= end.line:
                continue
            covers = (start.line, start.column) <= (location.line, column) < (end.line, end.column)
            size = (end.line - start.line) * 10_000 + end.column - start.column
            if covers or start.line == location.line:
                found.append((size + (0 if covers else 10_000_000 + start.column), node))
        return min(found, key=lambda f: f[0])[1] if found else None  # type: ignore[return-value]

    def all(self, kind: type[Node], accept: Callable[[Node], bool] = lambda node: True) -> list[Node]:
        """Every accepted node of a kind, in order of the text."""
        nodes = [n for n in self.positions if isinstance(n, kind) and accept(n)]
        return sorted(nodes, key=lambda n: (self.positions[n].start.line, self.positions[n].start.column))

    def code(self, node: cst.CSTNode) -> str:
        """The text of a node."""
        return self.tree.code_for_node(node)

    def replaced(self, *changes: tuple[cst.CSTNode, cst.CSTNode | str]) -> str:
        """The text with nodes replaced; a string is parsed as an expression."""
        tree: cst.CSTNode = self.tree
        for old, new in changes:
            made = cst.parse_expression(new) if isinstance(new, str) else new
            tree = tree.deep_replace(old, made)
        assert isinstance(tree, cst.Module)
        return tree.code


def diff(before: str, after: str, path: str) -> str:
    """Unified diff of two texts."""
    lines = unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{path}", f"b/{path}")
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


def with_import(text: str, name: str, statement: str) -> str:
    """The text with an import added behind its last top-level one, unless it binds `name` already."""
    tree = cst.parse_module(text)
    last = -1
    for i, line in enumerate(tree.body):
        if isinstance(line, cst.SimpleStatementLine) and isinstance(line.body[0], (cst.Import, cst.ImportFrom)):
            last = i
            if name in _bound(line.body[0]):
                return text
        elif i == 0 and _is_docstring(line):
            last = 0
    body = [*tree.body[: last + 1], cst.parse_statement(statement), *tree.body[last + 1 :]]
    return tree.with_changes(body=body).code


def _is_docstring(line: cst.CSTNode) -> bool:
    return (
        isinstance(line, cst.SimpleStatementLine)
        and isinstance(line.body[0], cst.Expr)
        and isinstance(line.body[0].value, (cst.SimpleString, cst.ConcatenatedString))
    )


def _bound(statement: cst.Import | cst.ImportFrom) -> set[str]:
    if isinstance(statement.names, cst.ImportStar):
        return set()
    bound = set()
    for alias in statement.names:
        taken: cst.CSTNode = alias.asname.name if alias.asname is not None else alias.name
        while isinstance(taken, cst.Attribute):
            taken = taken.value
        if isinstance(taken, cst.Name):
            bound.add(taken.value)
    return bound
