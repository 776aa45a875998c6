"""Patterns of expressions, written as Python: `log(softmax(z, ...))` matches `torch.log(p)` where `p = z.softmax(-1)`.

Single names are what varies: `eps` stands for a small constant, `c` for any constant, every other name for any expression, the
same one wherever it occurs. `...` stands for the remaining arguments of a call as written, `*any` for some that are dropped.
Sums and products match in both orders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache

import libcst as cst

from stabdiag.repair.editing import flow, pair
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import Head, head, number, spell

SMALL = 1e-2
"""Largest constant that is taken for an epsilon."""


@dataclass(frozen=True)
class Step:
    """A name that was followed: from its use to the expression that it stands for."""

    name: cst.Name
    value: cst.BaseExpression
    assign: cst.Assign | None  # None: from the loss into the model's forward


@dataclass(frozen=True)
class Match:
    """What a pattern found.

    Attributes:
        root: the whole expression.
        bound: name in the pattern -> expression.
        rest: what `...` stands for.
        steps: names followed, and for every bound name those on the way to it.
    """

    root: cst.BaseExpression
    bound: dict[str, cst.BaseExpression] = field(default_factory=dict)
    rest: tuple[cst.Arg, ...] | None = None
    steps: tuple[Step, ...] = ()
    way: dict[str, tuple[Step, ...]] = field(default_factory=dict)


@cache
def _parsed(pattern: str) -> tuple[Source, cst.BaseExpression]:
    source = Source("", f"from torch import *\n{pattern}\n")
    line = source.tree.body[1]
    assert isinstance(line, cst.SimpleStatementLine) and isinstance(line.body[0], cst.Expr)
    return source, line.body[0].value


def matches(source: Source, pattern: str, node: cst.BaseExpression) -> Iterator[Match]:
    """All ways in which an expression matches a pattern."""
    said, wanted = _parsed(pattern)
    return _matched(source, said, wanted, node, Match(node), ())


def _matched(
    source: Source, said: Source, wanted: cst.BaseExpression, node: cst.BaseExpression, so_far: Match, way: tuple[Step, ...]
) -> Iterator[Match]:
    if isinstance(wanted, cst.Name):
        yield from _bind(source, wanted.value, node, so_far, way)
        return
    if (value := number(wanted)) is not None:
        if number(node) == value:
            yield so_far
        return
    asked, found = _pattern_head(said, wanted), head(source, node)
    if found is not None and found.op == asked.op:
        yield from _operands(source, said, asked, found, so_far, way)
    for step in _steps(source, node):
        passed = replace(so_far, steps=so_far.steps if step in so_far.steps else (*so_far.steps, step))
        yield from _matched(source, said, wanted, step.value, passed, (*way, step))


def _steps(source: Source, node: cst.BaseExpression) -> Iterator[Step]:
    if not isinstance(node, cst.Name):
        return
    assign = flow.assignment(source, node)
    if assign is not None:
        yield Step(node, assign.value, assign)
    elif (returned := pair.output(source, node)) is not None:
        yield Step(node, returned, None)


def _pattern_head(said: Source, wanted: cst.BaseExpression) -> Head:
    """A pattern's operation; its functions are written bare."""
    if isinstance(wanted, cst.Call) and isinstance(wanted.func, cst.Name):
        values = tuple(
            arg.value for arg in wanted.args if arg.keyword is None and not arg.star and not isinstance(arg.value, cst.Ellipsis)
        )
        return Head(wanted.func.value, values, tuple(wanted.args))
    found = head(said, wanted)
    assert found is not None, f"{said.code(wanted)} is no pattern"
    return found


def _operands(source: Source, said: Source, asked: Head, found: Head, so_far: Match, way: tuple[Step, ...]) -> Iterator[Match]:
    kept = any(isinstance(arg.value, cst.Ellipsis) for arg in asked.arguments)
    open_end = kept or any(arg.star for arg in asked.arguments)
    count = len(asked.operands)
    if len(found.operands) < count or (not open_end and len(found.operands) > count):
        return
    keywords = {arg.keyword.value: arg.value for arg in found.arguments if arg.keyword is not None}
    wanted_keywords = {arg.keyword.value: arg.value for arg in asked.arguments if arg.keyword is not None}
    if not wanted_keywords.keys() <= keywords.keys():
        return
    if kept:
        rest = tuple(
            arg
            for arg in found.arguments
            if arg.value not in found.operands[:count] and (arg.keyword is None or arg.keyword.value not in wanted_keywords)
        )
        if so_far.rest is not None and [source.code(a) for a in so_far.rest] != [source.code(a) for a in rest]:
            return
        so_far = replace(so_far, rest=rest)
    pairs = list(zip(asked.operands, found.operands[:count], strict=True))
    pairs += [(value, keywords[name]) for name, value in wanted_keywords.items()]
    orders = [pairs]
    if asked.op in ("add", "mul") and count == 2:
        orders.append([(pairs[0][0], pairs[1][1]), (pairs[1][0], pairs[0][1])])
    for order in orders:
        yield from _all(source, said, order, so_far, way)


def _all(
    source: Source,
    said: Source,
    pairs: list[tuple[cst.BaseExpression, cst.BaseExpression]],
    so_far: Match,
    way: tuple[Step, ...],
) -> Iterator[Match]:
    if not pairs:
        yield so_far
        return
    (wanted, node), *others = pairs
    for one in _matched(source, said, wanted, node, so_far, way):
        yield from _all(source, said, others, one, way)


def _bind(source: Source, name: str, node: cst.BaseExpression, so_far: Match, way: tuple[Step, ...]) -> Iterator[Match]:
    if name == "eps" and not is_epsilon(source, node):
        return
    if name == "c" and constant(source, node) is None:
        return
    if name in so_far.bound:
        if _meaning(source, so_far.bound[name]) == _meaning(source, node):
            yield so_far
        return
    yield replace(so_far, bound={**so_far.bound, name: node}, way={**so_far.way, name: way})


def constant(source: Source, node: cst.BaseExpression) -> float | None:
    """The value of a literal, of a name assigned one, or of an argument or attribute that has one as its default."""
    if (value := number(node)) is not None:
        return value
    if isinstance(node, cst.Name):
        assign = flow.assignment(source, node)
        if assign is not None:
            return constant(source, assign.value)
        function = source.around(node, cst.FunctionDef)
        for param in function.params.params if function is not None else ():
            if param.name.value == node.value:
                return constant(source, param.default) if param.default is not None else None
        if flow.reads(source, node) is None and (top := flow.of_file(source, node.value)) is not None:
            return constant(source, top.value)
    if isinstance(node, cst.Attribute) and isinstance(node.value, cst.Name) and node.value.value == "self":
        owner = source.around(node, cst.ClassDef)
        for made, given in _attributes(source):
            if made.attr.value == node.attr.value and source.around(made, cst.ClassDef) is owner:
                return constant(source, given)
    return None


def _attributes(source: Source) -> Iterator[tuple[cst.Attribute, cst.BaseExpression]]:
    """Assignments to attributes, those of tuples to tuples taken apart."""
    for assign in source.all(cst.Assign):
        for target in assign.targets:
            whole, value = target.target, assign.value
            if isinstance(whole, cst.Attribute):
                yield whole, value
            elif isinstance(whole, cst.Tuple) and isinstance(value, cst.Tuple) and len(whole.elements) == len(value.elements):
                for one, made in zip(whole.elements, value.elements, strict=True):
                    if isinstance(one.value, cst.Attribute):
                        yield one.value, made.value


def is_epsilon(source: Source, node: cst.BaseExpression) -> bool:
    """Whether an expression is a small positive constant, or named like one."""
    value = constant(source, node)
    if value is not None:
        return 0 < value <= SMALL
    last = node.attr if isinstance(node, cst.Attribute) else node
    return isinstance(last, cst.Name) and "eps" in last.value.lower()


def _meaning(source: Source, node: cst.BaseExpression) -> str:
    """The text of an expression without white space, a name replaced by what it is short for."""
    if isinstance(node, cst.Name) and (assign := flow.assignment(source, node)) is not None:
        return _meaning(source, assign.value)
    return re.sub(r"\s+", "", source.code(node))


def dimension(source: Source, match: Match) -> str | None:
    """The `dim` among the remaining arguments, as written; None when there is none."""
    for arg in match.rest or ():
        if arg.keyword is None or arg.keyword.value in ("dim", "axis"):
            return source.code(arg.value)
    return None


_REST = "\0"


def written(source: Source, template: str, texts: dict[str, str], rest: str = "") -> str:
    """A template with expressions put in for its names, bracketed where they need it; `...` becomes `rest`.

    `torch.`, `F.` and `nn.` become what the file calls these modules.
    """
    said = Source("", f"({template})\n")
    out: list[tuple[int, int, str]] = []
    for arg in said.all(cst.Arg, lambda a: isinstance(a.value, cst.Ellipsis)):
        out.append((*said.span(arg.value), _REST))
    for name in said.all(cst.Name):
        above = said.parents[name]
        if isinstance(above, cst.Attribute | cst.Arg) and name is not above.value:
            continue
        if name.value in texts:
            text = texts[name.value]
            out.append((*said.span(name), f"({text})" if needs_brackets(above, name, text) else text))
    text = said.text
    for start, end, new in sorted(out, reverse=True):
        text = text[:start] + new + text[end:]
    text = text.strip()[1:-1]
    return spell(source, text.replace(_REST, rest) if rest else re.sub(rf", {_REST}|{_REST}, |{_REST}", "", text))


def needs_brackets(above: cst.CSTNode, node: cst.CSTNode, text: str) -> bool:
    """Whether an expression needs brackets in the place of a node below another."""
    if isinstance(above, cst.Attribute | cst.Await) or (
        isinstance(above, cst.Subscript | cst.Call) and node is above.children[0]
    ):
        return not atomic(text)
    if not isinstance(above, cst.BinaryOperation | cst.UnaryOperation | cst.Comparison | cst.ComparisonTarget):
        return False
    outer, inner = _operator(above), _precedence(cst.parse_expression(text))
    left = isinstance(above, cst.UnaryOperation) or (isinstance(above, cst.BinaryOperation) and node is above.left)
    return inner < outer if left else inner <= outer


def _precedence(node: cst.CSTNode) -> int:
    """How tightly an operator binds: 0 for comparisons and looser, 5 for what needs no brackets."""
    return 5 if isinstance(node, cst.BaseExpression) and node.lpar else _operator(node)


def _operator(node: cst.CSTNode) -> int:
    if isinstance(node, cst.BinaryOperation):
        kinds: dict[type[cst.CSTNode], int] = {cst.Add: 1, cst.Subtract: 1, cst.Power: 4}
        return kinds.get(type(node.operator), 2)
    if isinstance(node, cst.UnaryOperation):
        return 3
    return 5 if isinstance(node, cst.Name | cst.Attribute | cst.Call | cst.Subscript | cst.Integer | cst.Float) else 0


def atomic(text: str) -> bool:
    """Whether an expression needs no brackets wherever it is put."""
    return _precedence(cst.parse_expression(text)) == 5
