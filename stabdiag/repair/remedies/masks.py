"""Masks: what is left out of a softmax, a branch or a mean without making anything else infinite."""

from __future__ import annotations

import libcst as cst

from stabdiag.repair.editing import flow
from stabdiag.repair.editing.pattern import constant, matches
from stabdiag.repair.editing.rewrite import Rule, nearby, outwards, replacement, rewrite, unless_guarded
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import Head, constructor, head, number, spell
from stabdiag.repair.margins import DIVISIONS, operands_at
from stabdiag.repair.remedy import Case, Edit, Remedy, Rewrite
from stabdiag.trace import Location

_DROPS = ("masked_fill(x, m, c)", "masked_fill_(x, m, c)", "where(m, c, x)")
_KEEPS = ("where(m, x, c)", "scaled_dot_product_attention(q, k, v, attn_mask=m)", "scaled_dot_product_attention(q, k, v, m)")
_PADDING = ("key_padding_mask", "src_key_padding_mask", "tgt_key_padding_mask", "memory_key_padding_mask")
_FILLS = (
    *("masked_fill(x, m, c)", "masked_fill(x, m, value=c)", "masked_fill_(x, m, c)", "masked_fill_(x, m, value=c)"),
    *("where(m, x, c)", "where(m, c, x)", "full_like(x, c, *any)"),
)
_ADDED = ("x + (1 - m) * c", "x + c * (1 - m)")
_LARGE = 1e4
"""From here on a constant is one that stands for infinity; float16 ends at 65,504."""
_LAST = frozenset(["div"])
"""Operations that are singular in their last operand; all others are in their first."""


def _unmask(source: Source, case: Case) -> str | None:
    """Take fully masked rows out of the mask; a mask that has no name gets one."""
    marked = source.at(case.finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        for argument in node.args if isinstance(node, cst.Call) else ():
            if argument.keyword is not None and argument.keyword.value in _PADDING:
                return _opened(source, argument.value, drops=True)
        for pattern in (*_DROPS, *_KEEPS):
            for match in matches(source, pattern, node):
                value = constant(source, match.bound["c"]) if "c" in match.bound else float("-inf")
                if value is not None and value < -1e3:
                    return _opened(source, match.bound["m"], pattern in _DROPS)
        for match in matches(source, "softmax(s + m, ...)", node):
            both = source.code(match.bound["s"]), source.code(match.bound["m"])
            operand = head(source, match.root)
            if isinstance(match.bound["s"], cst.Name) and operand is not None:
                least = spell(source, f"torch.finfo({both[0]}.dtype).min")
                return source.replaced((operand.operands[0], f"({' + '.join(both)}).clamp_min({least})"))
    return None


def _opened(source: Source, mask: cst.BaseExpression, drops: bool) -> str | None:
    code = source.code(mask)
    if ".all(" in code or ".any(" in code:
        return None
    if isinstance(mask, cst.Name):
        return source.replaced((mask, _without_full_rows(code, drops)))
    line = source.statement(mask)
    if line is None:
        return None
    names = ("masked", "hidden", "dropped") if drops else ("kept", "visible", "allowed")
    name = next(n for n in names if not source.named(n))
    return source.spliced([source.before(line, [f"{name} = {code}"]), (*source.span(mask), _without_full_rows(name, drops))])


def _without_full_rows(mask: str, drops: bool) -> str:
    return f"{mask} & ~{mask}.all(-1, keepdim=True)" if drops else f"{mask} | ~{mask}.any(-1, keepdim=True)"


def _dtype_minimum(source: Source, case: Case) -> str | None:
    """Replace the constant of a fill, or an added multiple of it by a fill."""
    marked = source.at(case.finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        for pattern in (*_FILLS, *_ADDED):
            for match in matches(source, pattern, node):
                value, tensor = constant(source, match.bound["c"]), source.code(match.bound["x"])
                if value is None or not _LARGE <= abs(value) < float("inf"):
                    continue
                if not isinstance(match.bound["x"], cst.Name | cst.Attribute):
                    continue
                limit = spell(source, f"torch.finfo({tensor}.dtype).{'min' if value < 0 else 'max'}")
                if pattern in _ADDED:
                    mask = source.code(match.bound["m"])
                    return source.spliced([replacement(source, match.root, f"{tensor}.masked_fill({mask} == 0, {limit})")])
                return source.replaced((match.bound["c"], limit))
    return _infinite(source, case.finding.location)


def _infinite(source: Source, at: Location | None) -> str | None:
    """A literal without a tensor beside it becomes -inf, which every format holds."""
    for node in source.all(cst.UnaryOperation) if at is not None else ():
        value = number(node)
        if at is not None and source.line(node) == at.line and value is not None and -float("inf") < value <= -_LARGE:
            return source.replaced((node, 'float("-inf")'))
    return None


def _sanitise(source: Source, case: Case) -> str | None:
    """Put a second where around the operand of the op that the finding marks."""
    marked = source.at(case.finding.location)
    if marked is None:
        return None
    for node in (marked, *outwards(source, marked)):
        made = head(source, node)
        if made is None or made.op in ("where", "neg", "mul", "add", "sub"):
            continue
        chosen = _where(source, node)
        if chosen is None or not made.operands:
            continue
        where, first = chosen
        operand = made.operands[-1 if made.op in _LAST else 0]
        if (inner := head(source, operand)) is not None and inner.op == "where":
            return None
        condition, value = source.code(where.operands[0]), source.code(operand)
        branches = f"{value}, 1.0" if first else f"1.0, {value}"
        return source.replaced((operand, spell(source, f"torch.where({condition}, {branches})")))
    return None


def _where(source: Source, node: cst.BaseExpression) -> tuple[Head, bool] | None:
    """The where that selects an expression, directly or by name, and whether it is its first branch."""
    places: list[cst.CSTNode] = [node]
    statement = next((a for a in source.ancestors(node) if isinstance(a, cst.BaseSmallStatement)), None)
    if isinstance(statement, cst.Assign) and isinstance(statement.targets[0].target, cst.Name):
        places += flow.uses(source, statement)
    for place in places:
        for above in (place, *outwards(source, place)):
            made = head(source, above) if isinstance(above, cst.BaseExpression) else None
            if made is not None and made.op == "where" and len(made.operands) == 3:
                at = source.span(place)[0]
                for i in (1, 2):
                    start, end = source.span(made.operands[i])
                    if start <= at < end:
                        return made, i == 1
    return None


def _bounded_logarithm(source: Source, case: Case) -> str | None:
    """Bound the logarithm of a masked softmax from below where it is multiplied."""
    marked = source.at(case.finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        made = head(source, node)
        for operand in made.operands if made is not None and made.op == "mul" else ():
            if any(True for _ in matches(source, "log_softmax(z, ...)", operand)):
                return source.spliced([replacement(source, operand, f"{_receiver(source, operand)}.clamp_min(-1e4)")])
    return None


def _receiver(source: Source, node: cst.BaseExpression) -> str:
    code = source.code(node)
    return code if isinstance(node, cst.Name | cst.Call | cst.Attribute) else f"({code})"


def _zero_infinity(source: Source, case: Case) -> str | None:
    """Ask `ctc_loss`, or the `nn.CTCLoss` that the line calls, to leave out what cannot be aligned."""
    marked = source.at(case.finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        if not isinstance(node, cst.Call) or (call := _ctc(source, node)) is None:
            continue
        given = [arg.value for arg in call.args if arg.keyword is not None and arg.keyword.value == "zero_infinity"]
        if given:
            return source.replaced((given[0], "True"))
        end = source.span(call.args[-1].value)[1] if call.args else source.span(call)[1] - 1
        return source.spliced([(end, end, ", zero_infinity=True" if call.args else "zero_infinity=True")])
    return None


def _ctc(source: Source, call: cst.Call) -> cst.Call | None:
    """The call that takes `zero_infinity`: of the function, or of the constructor of the module."""
    made = call.func if isinstance(call.func, cst.Call) else constructor(source, call.func)
    if made is not None and source.code(made.func).endswith("CTCLoss"):
        return made
    return call if source.code(call.func).endswith("ctc_loss") else None


_ONE_FILL: list[Rule] = [
    ("masked_fill(masked_fill(x, a, c), b, c)", "x.masked_fill((a | b) & ~(a | b).all(-1, keepdim=True), c)"),
]


def _non_empty(source: Source, case: Case) -> str | None:
    """Clamp a divisor that counts: where every non-zero value of it is at least 1."""
    counts = operands_at(case, DIVISIONS, -1)
    if any(o.smallest < 1 for o in counts):
        return None
    return rewrite(source, case.finding.location, [("a / sum(m, ...)", unless_guarded("m", "a / m.sum(...).clamp_min(1)"))])


REMEDIES = (
    Remedy(
        "unmask-one-key",
        "Leave every query at least one key",
        Edit(_unmask),
        "A softmax over nothing but -inf is 0 / 0. Rows without a key are not masked at all; what they attend to is ignored "
        "behind the softmax, as padding is, but it is finite, and so is the gradient of everything else.",
        keeps_function=True,
    ),
    Remedy(
        "combine-masks",
        "Combine boolean masks and fill once",
        Rewrite(_ONE_FILL),
        "Two masks that leave every row a key may leave some row none together, and two fills with the smallest number of a "
        "dtype add up to -inf. One fill with the combined mask can look at its rows.",
        keeps_function=True,
    ),
    Remedy(
        "dtype-minimum",
        "Use the smallest number of the tensor's own dtype in a mask",
        Edit(_dtype_minimum),
        "-1e9 does not exist in float16. `torch.finfo(x.dtype).min` does in every dtype, and its exponential is 0 all the "
        "same.",
        keeps_function=True,
    ),
    Remedy(
        "bounded-logarithm",
        "Bound the log-probability before it is multiplied",
        Edit(_bounded_logarithm),
        "A masked logit has probability 0 and log-probability -inf; their product is NaN where its limit is 0. A "
        "log-probability of -10,000 stands for the same 0, and its product with it is 0.",
        keeps_function=True,
    ),
    Remedy(
        "zero-infinity",
        "Leave out what CTC cannot align",
        Edit(_zero_infinity),
        "A target longer than its input has no alignment: its loss is infinite, its gradient NaN; with zero_infinity both are "
        "0.",
        keeps_function=True,
    ),
    Remedy(
        "sanitise-input",
        "Make the operand harmless before the where",
        Edit(_sanitise),
        "`where(c, f(x), 0)` takes the other value where f is not defined, but the gradient of f is computed there all the "
        "same, and 0 · inf is NaN. With a harmless operand in those places it is 0.",
        keeps_function=True,
    ),
    Remedy(
        "non-empty-reduction",
        "Do not average over an empty set",
        Edit(_non_empty),
        "The mean of nothing is 0 / 0; the sum of nothing divided by at least 1 is 0.",
        keeps_function=True,
    ),
)
