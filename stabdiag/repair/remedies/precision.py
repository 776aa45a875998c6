"""Precision islands: the few lines that need more digits or more range than the rest get them."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from stabdiag.repair.editing import flow
from stabdiag.repair.editing.island import island
from stabdiag.repair.editing.pattern import Match, matches
from stabdiag.repair.editing.rewrite import Rule, nearby, outwards, rewrite
from stabdiag.repair.editing.source import Change, Source
from stabdiag.repair.editing.spelling import head
from stabdiag.repair.remedy import Case, Edit, Remedy, Rewrite
from stabdiag.rule import rule_of

_CASTS = ("to(m, t)", "to(m, dtype=t)", "float(m)", "half(m)", "bfloat16(m)", "type(m, t)", "type_as(m, t)")
_INTEGERS: list[Rule] = [
    *((f"cumsum({cast}, ...)", "torch.cumsum(m.long(), ...)") for cast in _CASTS),
    ("cumsum(m, dim=d, dtype=t)", "torch.cumsum(m, dim=d, dtype=torch.long)"),
    ("arange(n, dtype=t, device=d)", "torch.arange(n, device=d)"),
    ("arange(n, device=d, dtype=t)", "torch.arange(n, device=d)"),
    ("arange(n, dtype=t)", "torch.arange(n)"),
    *((cast.replace("m", "arange(n, device=d)", 1), "torch.arange(n, device=d)") for cast in _CASTS),
    *((cast.replace("m", "arange(n)", 1), "torch.arange(n)") for cast in _CASTS),
    *((cast, "m.long()") for cast in _CASTS),
]


def _float32(source: Source, case: Case) -> str | None:
    """Where the finding is not about float32 itself."""
    return None if "float32" in case.finding.precisions else island(source, case.finding.location, "float")


def _float64(source: Source, case: Case) -> str | None:
    return island(source, case.finding.location, "double")


def _integer_positions(source: Source, case: Case) -> str | None:
    """Take the cast to a floating-point dtype out, or make it one to int64, where the finding's op counts."""
    counts = case.finding.op.startswith(("arange", "cumsum"))
    if rule_of(case.finding).kind != "expression" and not counts:
        return None
    return rewrite(source, case.finding.location, _INTEGERS)


def _float32_loss(source: Source, case: Case) -> str | None:
    """Cast what `loss` is given: one tensor, or what it takes apart."""
    loss = next((f for f in source.tree.body if isinstance(f, cst.FunctionDef) and f.name.value == "loss"), None)
    if loss is None or not loss.params.params or not isinstance(loss.body, cst.IndentedBlock):
        return None
    name = loss.params.params[0].name.value
    if f"{name}.float()" in source.code(loss) or "part.float()" in source.code(loss):
        return None
    for assign in source.all(cst.Assign, lambda a: source.around(a, cst.FunctionDef) is loss):
        taken_apart = isinstance(assign.value, cst.Name) and assign.value.value == name
        if taken_apart and isinstance(assign.targets[0].target, cst.Tuple):
            return source.replaced((assign.value, f"(part.float() for part in {name})"))
    return source.spliced([source.before(loss.body.body[0], [f"{name} = {name}.float()"])])


def _float32_phases(source: Source, case: Case) -> str | None:
    """Take the buffer that the phases are made of out of what `model.to(dtype)` casts."""
    marked = source.at(case.finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        for part in _parts(source, node):
            owner = source.around(part, cst.ClassDef)
            for call in source.all(cst.Call):
                if not _registers(call, part.attr.value):
                    continue
                if source.around(call, cst.ClassDef) is owner and len(call.args) > 1:
                    changes: list[Change] = [(call, f"self.{part.attr.value} = {source.code(call.args[1].value)}")]
                    for use, x in _uses(source, part, owner):
                        changes.append((use, f"{source.code(use)}.to({x}.device)"))
                        changes += _finished(source, use, x)
                    return source.replaced(*changes)
    return None


def _sixteen(source: Source, match: Match) -> str | None:
    return "m.float()" if source.code(match.bound["t"]).endswith(("float16", ".half")) else None


def _finished(source: Source, use: cst.Attribute, x: str) -> Iterator[Change]:
    """Sines and cosines of phases cast to the dtype of `x`, and positions that were cast to it in float32 instead."""
    places: list[cst.CSTNode] = [use]
    statement = next((a for a in source.ancestors(use) if isinstance(a, cst.BaseSmallStatement)), None)
    if isinstance(statement, cst.Assign) and isinstance(statement.targets[0].target, cst.Name):
        places += flow.uses(source, statement)
        for name in flow.names_in(source, statement.value):
            made = flow.assignment(source, name)
            for match in matches(source, "to(m, t)", made.value) if made is not None else ():
                yield match.root, f"{source.code(match.bound['m'])}.float()"
    for place in places:
        waves = (n for n in outwards(source, place) if (op := head(source, n)) is not None and op.op in ("sin", "cos"))
        if (wave := next(waves, None)) is not None:
            yield wave, f"{source.code(wave)}.to({x}.dtype)"


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
    first = call.args[0].value
    return isinstance(first, cst.SimpleString) and first.evaluated_value == name


_NARROWED: list[Rule] = [
    ("half(m)", "m.float()"),
    ("bfloat16(m)", "m.float()"),
    ("to(m, t)", _sixteen),
    ("to(m, dtype=t)", _sixteen),
]

REMEDIES = (
    Remedy(
        "no-narrow-cast",
        "Leave out the cast to 16 bits",
        Rewrite(_NARROWED),
        "bfloat16 tells 128 values apart within a power of two and float16 1,024: what has a large offset beside its signal "
        "keeps nothing of the signal.",
        keeps_function=True,
    ),
    Remedy(
        "float32-island",
        "Compute the named lines in float32 and cast the result back",
        Edit(_float32),
        "float32 has the range and the digits; the smallest island that needs them costs little.",
        keeps_function=True,
    ),
    Remedy(
        "float64-island",
        "Compute the named lines in float64 and cast the result back",
        Edit(_float64),
        "29 bits more for a difference that cancels; slow on GPUs, so for a few lines only.",
        keeps_function=True,
    ),
    Remedy(
        "float32-loss",
        "Weigh and reduce the loss in float32",
        Edit(_float32_loss),
        "A mean over many elements, or a small weight, makes gradients that float16 cannot hold; in float32 they are cast "
        "where they are large enough. A loss scale repairs the rest.",
        keeps_function=True,
    ),
    Remedy(
        "float32-phases",
        "Keep rotary frequencies and phases in float32",
        Edit(_float32_phases),
        "A phase is position times frequency, up to thousands of radians; rounded to bfloat16 it is wrong by whole turns. A "
        "buffer is cast together with the model, a plain attribute is not; cosine and sine are cast when they are finished.",
        keeps_function=True,
    ),
    Remedy(
        "integer-positions",
        "Keep positions and ids in int64",
        Edit(_integer_positions),
        "bfloat16 counts to 256 and float16 to 2048; what is used as an index has to stay an integer on the way.",
        keeps_function=True,
    ),
)
