"""Rewrites: the expression around a place is matched with patterns, and the first that matches is replaced by its template.

Names on the way are kept in order: an assignment that nothing reads any more goes, one that is read elsewhere stays, and what
`forward` returns changes together with the `loss` that takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import libcst as cst

from stabdiag.repair.editing import flow, pair
from stabdiag.repair.editing.pattern import (
    Match,
    Step,
    atomic,
    constant,
    dimension,
    is_epsilon,
    matches,
    needs_brackets,
    written,
)
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import head
from stabdiag.trace import Location

Template = str | Callable[[Source, Match], str | None]
Rule = tuple[str, Template]


def rewrite(source: Source, location: Location | None, rules: Sequence[Rule]) -> str | None:
    """The text with the first rule applied that fits at a location; None when none does.

    Tried are the marked expression, those around it, those inside it, then what its names were assigned and what is made of
    the name that it is assigned to.
    """
    marked = source.at(location)
    if marked is None:
        return None
    for ring in _rings(source, marked, 2):
        for pattern, template in rules:
            for node in (n for n in ring if not isinstance(n, cst.Name)):
                for match in matches(source, pattern, node):
                    text = apply(source, match, template)
                    if text is not None and text != source.text:
                        return text
    return None


def rewrite_only(source: Source, rules: Sequence[Rule]) -> str | None:
    """The text with the one call of the file that a rule fits rewritten; None when there is none, or more than one.

    For findings that mark a layer, where the function behind it is meant.
    """
    places: dict[cst.Call, tuple[Match, Template]] = {}
    for pattern, template in rules:
        for call in source.all(cst.Call):
            for match in matches(source, pattern, call):
                places.setdefault(call, (match, template))
    return apply(source, *next(iter(places.values()))) if len(places) == 1 else None


def nearby(source: Source, marked: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    """The expressions that belong to the marked one, nearest first, each once."""
    seen: set[int] = set()
    for ring in _rings(source, marked, 2):
        for node in ring:
            if id(node) not in seen:
                seen.add(id(node))
                yield node


def _rings(source: Source, marked: cst.BaseExpression, hops: int) -> Iterator[list[cst.BaseExpression]]:
    """The expression with what is around and inside it, then what names connect it with."""
    yield [marked, *outwards(source, marked), *_inside(source, marked)]
    if not hops:
        return
    for used in _consumers(source, marked):
        yield from _rings(source, used, hops - 1)
    for name in flow.names_in(source, marked):
        assign = flow.assignment(source, name)
        if assign is not None:
            yield from _rings(source, assign.value, hops - 1)


def outwards(source: Source, node: cst.CSTNode) -> Iterator[cst.BaseExpression]:
    """The expressions around a node, up to its statement."""
    for above in source.ancestors(node):
        if isinstance(above, cst.BaseSmallStatement | cst.BaseStatement | cst.Lambda):
            return
        if isinstance(above, cst.BaseExpression):
            yield above


def _inside(source: Source, node: cst.BaseExpression) -> list[cst.BaseExpression]:
    start, end = source.span(node)
    return source.all(cst.BaseExpression, lambda n: start <= source.span(n)[0] and source.span(n)[1] <= end)  # type: ignore[type-abstract]


def _consumers(source: Source, node: cst.CSTNode) -> list[cst.Name]:
    """The names that read what the statement around an expression assigns or returns."""
    statement = next((a for a in source.ancestors(node) if isinstance(a, cst.BaseSmallStatement)), None)
    if isinstance(statement, cst.Assign) and isinstance(statement.targets[0].target, cst.Name):
        return flow.uses(source, statement)
    if isinstance(statement, cst.Return):
        return pair.readers(source, statement)
    return []


@dataclass
class _Edit:
    """Splices of one application, and what the names of the template stand for."""

    texts: dict[str, str] = field(default_factory=dict)
    splices: list[tuple[int, int, str]] = field(default_factory=list)
    kept: list[cst.Assign] = field(default_factory=list)


def apply(source: Source, match: Match, template: Template) -> str | None:
    """The text with a match replaced; None where that cannot be written."""
    edit = _Edit()
    if not all(_place(source, match, name, edit) for name in match.bound):
        return None
    if any(step.assign is None for step in match.steps) and any(flow.names_in(source, arg.value) for arg in match.rest or ()):
        return None
    said = template if isinstance(template, str) else template(source, match)
    if said is None:
        return None
    if (dim := dimension(source, match)) is not None:
        edit.texts["DIM"] = dim
    elif "DIM" in said:
        return None
    rest = ", ".join(source.code(arg).rstrip().rstrip(",") for arg in match.rest or ())
    edit.splices.append(replacement(source, match.root, written(source, said, edit.texts, rest)))
    edit.splices += [source.without(line) for line in _dead(source, match, edit.kept)]
    return source.spliced(edit.splices)


def replacement(source: Source, node: cst.BaseExpression, text: str) -> tuple[int, int, str]:
    """The splice that puts an expression in the place of another, with the brackets that it needs there."""
    start, end = source.span(node)
    if node.lpar:
        own = source.text[start - 1 : start] == "(" and source.text[end : end + 1] == ")"
        return (start - 1, end + 1, text) if own and atomic(text) else (start, end, text)
    above = source.parents[node]
    return (start, end, f"({text})" if needs_brackets(above, node, text) else text)


def _place(source: Source, match: Match, name: str, edit: _Edit) -> bool:
    """Decide how a bound expression is said where the match stands; False when it cannot be."""
    node, way = match.bound[name], match.way[name]
    code = _bracketed(source, node)
    if not way:
        edit.texts[name] = code
        return True
    together = [n for n, steps in match.way.items() if steps == way]
    fixed = not flow.names_in(source, node)
    if fixed:
        edit.texts[name] = code
        return True
    if any(step.assign is None for step in way):
        into = [step.assign is None for step in way].index(True)  # names of the loss are written out, those of the model stay
        alone = len([n for n in together if flow.names_in(source, match.bound[n])]) == 1
        return alone and _lift(source, match, name, way[into:], edit)
    dead = {id(line) for line in _dead(source, match, [])}
    gone = way[-1].assign is not None and id(source.statement(way[-1].assign)) in dead
    dropped = [s.assign for s in match.steps if s.assign is not None and id(source.statement(s.assign)) in dead]
    same = flow.same_value(source, node, match.root, dropped)
    if same and (gone or isinstance(node, cst.Name | cst.Attribute)):
        edit.texts[name] = code
        return True
    if gone and len(together) == 1:
        return _lift(source, match, name, way, edit)
    return _named(source, way[-1], node, name, edit)


def _lift(source: Source, match: Match, name: str, way: tuple[Step, ...], edit: _Edit) -> bool:
    """Take the operation out of the place where the followed name gets its value; the name stands for its operand then."""
    node = match.bound[name]
    first, last = way[0], way[-1]
    inner = source.code(node)
    for step in way[1:]:
        if step.assign is not None and len(flow.uses(source, step.assign)) > 1:
            return False
    if first.assign is not None and isinstance(last.assign, cst.Assign) and source.code(last.assign.targets[0].target) == inner:
        line = source.statement(last.assign)
        if line is None or len(way) > 1:
            return False
        edit.splices.append(source.without(line))
    else:
        edit.splices.append(replacement(source, last.value, inner))
    if last.assign is not None:
        edit.kept.append(last.assign)
    edit.texts[name] = first.name.value
    start, end = source.span(match.root)
    outer = source.code(last.value)
    at = source.span(node)[0] - source.span(last.value)[0]
    wrapped = outer[:at] + first.name.value + outer[at + len(inner) :]
    if first.assign is None:  # in another function: `self.act(x)` has to be said as a function
        made = head(source, last.value)
        extra = "".join(f", {source.code(arg)}" for arg in made.arguments) if made is not None else ""
        wrapped = written(source, f"torch.{made.op}(z{extra})", {"z": first.name.value}) if made is not None else wrapped
    others = pair.names_of_output(source) if first.assign is None else flow.uses(source, first.assign)
    for use in others:
        if not start <= source.span(use)[0] < end and not _inside_steps(source, use, match) and not _is_metadata(source, use):
            if any(
                n.value != "self" and n is not node for n in flow.names_in(source, last.value) if _is_local(source, n, node)
            ):
                return False
            edit.splices.append(replacement(source, use, wrapped))
    return True


def _is_metadata(source: Source, use: cst.Name) -> bool:
    """Whether a use asks for what the operation does not change: `p.dtype`, `p.device`."""
    above = source.parents[use]
    return isinstance(above, cst.Attribute) and above.attr.value in ("dtype", "device", "shape", "ndim")


def _is_local(source: Source, name: cst.Name, node: cst.CSTNode) -> bool:
    """Whether a name outside the operand is a variable, so that the operation cannot be said elsewhere."""
    start, end = source.span(node)
    return not start <= source.span(name)[0] < end and flow.reads(source, name) is not None


def _inside_steps(source: Source, use: cst.Name, match: Match) -> bool:
    """Whether a use is part of an assignment that the match took in."""
    at = source.span(use)[0]
    return any(s.assign is not None and source.span(s.value)[0] <= at < source.span(s.value)[1] for s in match.steps)


def _named(source: Source, step: Step, node: cst.BaseExpression, name: str, edit: _Edit) -> bool:
    """Give the operand a name of its own, in front of the statement that uses it."""
    line = source.statement(step.value)
    if line is None:
        return False
    fresh = next(n for n in ("logits", "operand", *(f"operand{i}" for i in range(2, 99))) if not source.named(n))
    edit.splices.append(source.before(line, [f"{fresh} = {source.code(node)}"]))
    edit.splices.append((*source.span(node), fresh))
    edit.texts[name] = fresh
    if step.assign is not None:
        edit.kept.append(step.assign)
    return True


def _dead(source: Source, match: Match, kept: list[cst.Assign]) -> list[cst.BaseStatement]:
    """The lines of followed assignments that nothing reads once the match is replaced."""
    gone: list[tuple[int, int]] = [source.span(match.root)]
    lines: list[cst.BaseStatement] = []
    assigns = list({id(s.assign): s.assign for s in match.steps if s.assign is not None and s.assign not in kept}.values())
    changed = True
    while changed:
        changed = False
        for assign in list(assigns):
            line = source.parents[assign]
            read = flow.uses(source, assign)
            inside = all(any(a <= source.span(n)[0] < b for a, b in gone) for n in read)
            if inside and isinstance(line, cst.SimpleStatementLine) and len(line.body) == 1:
                assigns.remove(assign)
                gone.append(source.span(assign))
                lines.append(line)
                changed = True
    return lines


def _bracketed(source: Source, node: cst.BaseExpression) -> str:
    """The code of an expression; over several lines it needs brackets."""
    code = source.code(node)
    return f"({code})" if "\n" in code and node.lpar else code


def guarded(operand: str) -> list[str]:
    """Patterns of an operand as authors keep it from 0: bare, with an epsilon, clamped."""
    return [
        operand,
        f"{operand} + eps",
        f"clamp({operand}, min=eps)",
        f"clamp({operand}, eps)",
        f"clamp_min({operand}, eps)",
        f"clamp({operand}, eps, c)",
        f"clamp({operand}, min=eps, max=c)",
        f"maximum({operand}, eps)",
    ]


def is_guarded(source: Source, node: cst.BaseExpression) -> bool:
    """Whether an expression is kept away from where it is dangerous: clamped, made positive, or with a constant added."""
    found = head(source, node)
    if found is None:
        assign = flow.assignment(source, node) if isinstance(node, cst.Name) else None
        return assign is not None and is_guarded(source, assign.value)
    if found.op == "add":
        return any(constant(source, o) is not None or is_epsilon(source, o) for o in found.operands)
    return found.op in ("clamp", "clamp_min", "clamp_max", "softplus", "where", "maximum", "minimum", "nan_to_num")


def unless_guarded(name: str, template: str) -> Template:
    """A template that does not apply where the operand is guarded already."""
    return when(lambda source, match: not is_guarded(source, match.bound[name]), template)


def when(applies: Callable[[Source, Match], bool], template: str) -> Template:
    """A template with a condition."""
    return lambda source, match: template if applies(source, match) else None


def is_inside(source: Source, node: cst.BaseExpression, op: str) -> bool:
    """Whether an expression is part of an operation already."""
    found = (head(source, above) for above in outwards(source, node))
    return any(made is not None and made.op == op for made in found)


def is_open_power(source: Source, match: Match) -> bool:
    """Whether x ** c has an infinite value or slope at an x of 0 that nothing prevents."""
    exponent = constant(source, match.bound["c"])
    return exponent is not None and exponent < 1 and not is_guarded(source, match.bound["x"])
