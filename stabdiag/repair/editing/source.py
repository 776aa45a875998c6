"""A source file as text with a concrete tree over it: find the expression a finding is about, replace it, keep everything else.

Edits are made in the text at positions that the tree gives, so whatever is not replaced stays byte for byte as it was.
"""

from __future__ import annotations

import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import unified_diff
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, ParentNodeProvider, PositionProvider

from stabdiag.trace import Location

Node = TypeVar("Node", bound=cst.CSTNode)
Change = tuple[cst.CSTNode, str]
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")


@dataclass(eq=False)
class Source:
    """A parsed file.

    `text` is exactly what was read, line endings included; `memory` keeps what was worked out about the file.
    Raises libcst.ParserSyntaxError for what is no Python.
    """

    path: str
    text: str
    tree: cst.Module = field(init=False, repr=False)
    memory: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._wrapper = MetadataWrapper(cst.parse_module(self.text), unsafe_skip_copy=True)
        self.tree = self._wrapper.module

    @cached_property
    def positions(self) -> dict[cst.CSTNode, CodeRange]:
        """Where every node stands; lines count from 1, columns count characters from 0."""
        return dict(self._wrapper.resolve(PositionProvider))

    @cached_property
    def parents(self) -> dict[cst.CSTNode, cst.CSTNode]:
        """The node around every node."""
        return dict(self._wrapper.resolve(ParentNodeProvider))

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the text, with their ends."""
        return _LINE.findall(self.text)

    @cached_property
    def _offsets(self) -> list[int]:
        offsets = [0]
        for line in self.lines:
            offsets.append(offsets[-1] + len(line))
        return offsets

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """Where a node begins and ends in the text, its own parentheses left out."""
        at = self.positions[node]
        return self._offsets[at.start.line - 1] + at.start.column, self._offsets[at.end.line - 1] + at.end.column

    def code(self, node: cst.CSTNode) -> str:
        """The text of a node, its own parentheses left out."""
        start, end = self.span(node)
        return self.text[start:end]

    def line(self, node: cst.CSTNode) -> int:
        """The line on which a node begins, from 1."""
        return self.positions[node].start.line

    def all(self, kind: type[Node], accept: Callable[[Node], bool] = lambda node: True) -> list[Node]:
        """Every accepted node of a kind, in order of the text."""
        known: list[Node] = self.memory.get(kind, [])
        if kind not in self.memory:
            nodes = [n for n in self.positions if isinstance(n, kind)]
            known = sorted(nodes, key=lambda n: (self.positions[n].start.line, self.positions[n].start.column))
            self.memory[kind] = known
        return [n for n in known if accept(n)]

    @cached_property
    def _names(self) -> dict[str, list[cst.Name]]:
        found: dict[str, list[cst.Name]] = {}
        for name in self.all(cst.Name):
            found.setdefault(name.value, []).append(name)
        return found

    def named(self, value: str) -> list[cst.Name]:
        """Every place where a name stands, in order of the text."""
        return self._names.get(value, [])

    def at(self, location: Location | None) -> cst.BaseExpression | None:
        """The expression that a location marks: exactly, else the smallest around its start, else the first on its line.

        None when there is none, or the location is in another file.
        """
        if location is None or not Path(self.path).as_posix().endswith(location.path):
            return None
        start, end = self._column(location.line, location.column), self._column(location.line, location.end_column)
        best: tuple[int, int] | None = None
        found: cst.BaseExpression | None = None
        for node, span in self.positions.items():
            if not isinstance(node, cst.BaseExpression) or not span.start.line <= location.line <= span.end.line:
                continue
            begins, covers = (span.start.line, span.start.column), False
            if start is not None:
                covers = begins <= (location.line, start) < (span.end.line, span.end.column)
            elif span.start.line != location.line:
                continue
            if not covers and span.start.line != location.line:
                continue
            exact = begins == (location.line, start) and (span.end.line, span.end.column) == (location.line, end)
            size = (span.end.line - span.start.line) * 10_000 + span.end.column - span.start.column
            rank = (0 if exact else 1 if covers else 2, size if covers or exact else span.start.column * 1_000 - size)
            if best is None or rank < best:
                best, found = rank, node
        return found

    def _column(self, line: int, column: int | None) -> int | None:
        """Columns of code objects count bytes of UTF-8, those of the tree count characters."""
        if column is None or not 0 < line <= len(self.lines):
            return None
        return len(self.lines[line - 1].encode()[:column].decode(errors="ignore"))

    def ancestors(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """The nodes around a node, from the inside out."""
        above = self.parents.get(node)
        while above is not None:
            yield above
            above = self.parents.get(above)

    def around(self, node: cst.CSTNode, kind: type[Node]) -> Node | None:
        """The innermost node of a kind around a node."""
        return next((a for a in self.ancestors(node) if isinstance(a, kind)), None)

    def statement(self, node: cst.CSTNode) -> cst.BaseStatement | None:
        """The statement that a node is part of."""
        return node if isinstance(node, cst.BaseStatement) else self.around(node, cst.BaseStatement)  # type: ignore[type-abstract]

    def indentation(self, statement: cst.CSTNode) -> str:
        """The white space in front of a statement."""
        line = self.lines[self.line(statement) - 1]
        return line[: len(line) - len(line.lstrip())]

    def replaced(self, *changes: Change) -> str | None:
        """The text with the code of some nodes replaced; None when the outcome is no Python or the nodes overlap."""
        return self.spliced([(*self.span(node), new) for node, new in changes])

    def before(self, statement: cst.CSTNode, lines: list[str]) -> tuple[int, int, str]:
        """The splice that puts lines in front of a statement, at its indentation."""
        at = self._offsets[self.line(statement) - 1]
        return at, at, "".join(self.indentation(statement) + line + self.tree.default_newline for line in lines)

    def behind(self, statement: cst.CSTNode, lines: list[str], indentation: str | None = None) -> tuple[int, int, str]:
        """The splice that puts lines behind a statement, at its indentation or another."""
        last, indent = self.positions[statement].end, self.indentation(statement) if indentation is None else indentation
        number = last.line - 1 if last.column == 0 and last.line > self.line(statement) else last.line
        newline = self.tree.default_newline
        text = "".join(indent + line + newline for line in lines)
        open_end = not self.lines[number - 1].endswith(("\n", "\r"))
        return self._offsets[number], self._offsets[number], (newline + text).removesuffix(newline) if open_end else text

    def without(self, statement: cst.CSTNode) -> tuple[int, int, str]:
        """The splice that removes the lines of a statement."""
        return self._offsets[self.line(statement) - 1], self._offsets[self.positions[statement].end.line], ""

    def spliced(self, splices: list[tuple[int, int, str]]) -> str | None:
        """The text with ranges replaced; None when they overlap or the outcome is no Python."""
        text, last = self.text, len(self.text) + 1
        for start, end, new in sorted(splices, key=lambda s: s[:2], reverse=True):
            if end > last:
                return None
            text, last = text[:start] + new + text[end:], start
        try:
            cst.parse_module(text)
        except cst.ParserSyntaxError:
            return None
        return text


def text_of(path: Path) -> str:
    """The text of a Python file, line endings as they are. Raises OSError, SyntaxError and UnicodeDecodeError."""
    return path.read_bytes().decode(encoding_of(path))


def encoding_of(path: Path) -> str:
    """The encoding that a Python file declares. Raises OSError and SyntaxError."""
    with path.open("rb") as file:
        return tokenize.detect_encoding(file.readline)[0]


def diff(before: str, after: str, path: str) -> str:
    """Unified diff of two texts."""
    lines = unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{path}", f"b/{path}")
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


def with_import(text: str, name: str, statement: str) -> str:
    """The text with an import added behind its last top-level one, unless it binds `name` already."""
    source = Source("", text)
    last: cst.CSTNode | None = None
    for i, line in enumerate(source.tree.body):
        if isinstance(line, cst.SimpleStatementLine) and isinstance(line.body[0], (cst.Import, cst.ImportFrom)):
            last = line
            if name in bound(line.body[0]):
                return text
        elif i == 0 and _is_docstring(line):
            last = line
    if last is None:
        return (source.spliced([(0, 0, statement + source.tree.default_newline)])) or text
    return source.spliced([source.behind(last, [statement], "")]) or text


def with_torch(text: str) -> str:
    """The text with `import torch` where it reads the name `torch` and nothing binds it."""
    source = Source("", text)
    bare = (n for n in source.named("torch") if isinstance(a := source.parents[n], cst.Attribute) and a.value is n)
    reads = any(source.around(n, cst.Import) is None and source.around(n, cst.ImportFrom) is None for n in bare)
    return with_import(text, "torch", "import torch") if reads else text


def _is_docstring(line: cst.CSTNode) -> bool:
    return (
        isinstance(line, cst.SimpleStatementLine)
        and isinstance(line.body[0], cst.Expr)
        and isinstance(line.body[0].value, (cst.SimpleString, cst.ConcatenatedString))
    )


def bound(statement: cst.Import | cst.ImportFrom) -> dict[str, str]:
    """Names that an import binds -> what they stand for ("F" -> "torch.nn.functional")."""
    if isinstance(statement.names, cst.ImportStar):
        return {}
    module = ""
    if isinstance(statement, cst.ImportFrom) and statement.module is not None:
        module = _dotted(statement.module) + "."
    names = {}
    for alias in statement.names:
        whole = module + _dotted(alias.name)
        if alias.asname is not None and isinstance(alias.asname.name, cst.Name):
            names[alias.asname.name.value] = whole
        elif isinstance(statement, cst.ImportFrom):
            names[_dotted(alias.name)] = whole
        else:
            names[whole.partition(".")[0]] = whole.partition(".")[0]
    return names


def _dotted(node: cst.CSTNode) -> str:
    if isinstance(node, cst.Attribute):
        return f"{_dotted(node.value)}.{node.attr.value}"
    return node.value if isinstance(node, cst.Name) else ""
