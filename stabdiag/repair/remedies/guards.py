"""Guards: an operand kept away from 0, where its function has no value or no slope.

Their constants are those of `stabdiag.repair.margins`, their edits keep the function, and the margin is stated.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import libcst as cst

from stabdiag.repair.editing.rewrite import Rule, is_guarded, is_open_power, rewrite, unless_guarded, when
from stabdiag.repair.editing.source import Source
from stabdiag.repair.margins import DIVISIONS, LOGARITHMS, ROOTS, as_code, guard_at
from stabdiag.repair.remedy import Case, Edit, Remedy
from stabdiag.trace import Location


def _guarding(
    rules: Callable[[str], list[Rule]], ops: tuple[str, ...], position: int = 0
) -> tuple[Edit, Callable[[Case], str]]:
    """An edit whose templates need a guard, and the remark that states its margin."""

    def make(source: Source, case: Case) -> str | None:
        found = guard_at(case, ops, position)
        return rewrite(source, case.finding.location, rules(as_code(found[0]))) if found is not None else None

    def remark(case: Case) -> str:
        found = guard_at(case, ops, position)
        if found is None or found[1] == inf:
            return ""
        return f"{as_code(found[0])} is {found[1] / found[0]:.1g} times below the smallest value here, {found[1]:.2g}"

    return Edit(make), remark


def _log_rules(least: str) -> list[Rule]:
    return [
        ("log(x + eps)", f"torch.log(x.clamp_min({least}))"),
        ("log(eps + 1 - x)", f"torch.log((1 - x).clamp_min({least}))"),
        *((f"{name}(x)", unless_guarded("x", f"torch.{name}(x.clamp_min({least}))")) for name in LOGARITHMS),
    ]


def _every_log(source: Source, case: Case) -> str | None:
    """Clamp every logarithm of the line, since log p seldom stands without log (1 - p); an epsilon that is absorbed goes."""
    at, found = case.finding.location, guard_at(case, LOGARITHMS, 0)
    if at is None or found is None:
        return None
    rules = _log_rules(as_code(found[0]))
    logarithms = source.all(cst.Call, lambda call: source.line(call) == at.line and _is_log(call.func))
    text = rewrite(source, at, rules) if not logarithms else None
    for call in reversed(logarithms):  # from the right: what stands to the left keeps its column
        here = Source(source.path, text or source.text)
        start = source.positions[call].start
        column = len(source.lines[start.line - 1][: start.column].encode())
        edited = rewrite(here, Location(source.path, start.line, column), rules)
        if edited is not None and _elsewhere(edited, start.line) == _elsewhere(here.text, start.line):
            text = edited
    return text


def _is_log(callee: cst.BaseExpression) -> bool:
    name = callee.attr if isinstance(callee, cst.Attribute) else callee
    return isinstance(name, cst.Name) and name.value in LOGARITHMS


def _elsewhere(text: str, line: int) -> list[str]:
    lines = text.splitlines()
    return lines[: line - 1] + lines[line:]


def _root_rules(least: str) -> list[Rule]:
    return [
        ("sqrt(x)", unless_guarded("x", f"torch.sqrt(x.clamp_min({least}))")),
        ("rsqrt(x)", unless_guarded("x", f"torch.rsqrt(x.clamp_min({least}))")),
        ("pow(x, c)", when(is_open_power, f"x.clamp_min({least}) ** c")),
    ]


def _inside_rules(least: str) -> list[Rule]:
    return [
        ("sqrt(x) + eps", unless_guarded("x", f"torch.sqrt(x + {least})")),
        ("sqrt(x)", unless_guarded("x", f"torch.sqrt(x + {least})")),
        ("rsqrt(x)", unless_guarded("x", f"torch.rsqrt(x + {least})")),
        ("pow(x, c)", when(is_open_power, f"(x + {least}) ** c")),
        ("norm(x, dim=d, keepdim=True)", f"torch.sqrt(x.square().sum(d, keepdim=True) + {least})"),
        ("norm(x, dim=d)", f"torch.sqrt(x.square().sum(d) + {least})"),
    ]


def _division_rules(least: str) -> list[Rule]:
    return [
        ("a / b", unless_guarded("b", f"a / b.clamp_min({least})")),
        ("reciprocal(b)", unless_guarded("b", f"1 / b.clamp_min({least})")),
    ]


def _jitter(source: Source, case: Case) -> str | None:
    """Add a small multiple of the identity to a matrix in front of its factorisation or inverse."""
    rules: list[Rule] = [
        (f"{name}(m)", when(lambda source, match: not is_guarded(source, match.bound["m"]), f"torch.linalg.{name}({_RIDGE})"))
        for name in ("cholesky", "inv", "eigh")
    ]
    rules += [("inverse(m)", f"torch.linalg.inv({_RIDGE})"), ("cholesky_solve(b, l)", "torch.cholesky_solve(b, l)")][:1]
    rules += [("solve(m, b)", f"torch.linalg.solve({_RIDGE}, b)")]
    return rewrite(source, case.finding.location, rules)


_RIDGE = (
    "m + 1e-3 * m.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] * torch.eye(m.shape[-1], dtype=m.dtype, device=m.device)"
)
"""1e-3 of the mean diagonal: the condition is at most a thousand times the size then; float32 keeps four digits of a factor."""


def _every_division(source: Source, case: Case) -> str | None:
    """Clamp what is divided by, in `a / b` and in `a /= b`."""
    text, found = _QUOTIENT.make(source, case), guard_at(case, DIVISIONS, -1)
    marked = source.at(case.finding.location)
    line = source.around(marked, cst.AugAssign) if marked is not None else None
    if text is not None or found is None or line is None or not isinstance(line.operator, cst.DivideAssign):
        return text
    if is_guarded(source, line.value):
        return None
    simple = isinstance(line.value, cst.Name | cst.Call | cst.Attribute | cst.Subscript)
    code = source.code(line.value) if simple else f"({source.code(line.value)})"
    return source.replaced((line.value, f"{code}.clamp_min({as_code(found[0])})"))


_LOG, _LOG_REMARK = Edit(_every_log), _guarding(_log_rules, LOGARITHMS)[1]
_ROOT, _ROOT_REMARK = _guarding(_root_rules, ROOTS)
_INSIDE, _INSIDE_REMARK = _guarding(_inside_rules, ROOTS)
_QUOTIENT, _DIVISION_REMARK = _guarding(_division_rules, DIVISIONS, -1)

REMEDIES = (
    Remedy(
        "guarded-log",
        "Keep the operand of a logarithm above 0",
        _LOG,
        "log(0) is -inf and its slope infinite. Where a softmax or sigmoid in one function meets its logarithm in another, "
        "this is the edit of one line; the stable form needs both.",
        keeps_function=True,
        remark=_LOG_REMARK,
    ),
    Remedy(
        "guarded-root",
        "Keep the operand of a root above 0",
        _ROOT,
        "A difference that rounding makes negative gives NaN, a 0 an infinite slope; clamped it gives neither.",
        keeps_function=True,
        remark=_ROOT_REMARK,
    ),
    Remedy(
        "epsilon-inside",
        "Put the epsilon inside the root",
        _INSIDE,
        "The slope of the root is infinite at 0, and bounded with an epsilon under it. An epsilon added to the root bounds "
        "nothing.",
        keeps_function=True,
        remark=_INSIDE_REMARK,
    ),
    Remedy(
        "guarded-division",
        "Keep the divisor away from 0",
        Edit(_every_division),
        "For divisors that are never negative. A signed one passes through 0 and has no guard.",
        keeps_function=True,
        remark=_DIVISION_REMARK,
    ),
    Remedy(
        "diagonal-jitter",
        "Add a little to the diagonal before the factorisation",
        Edit(_jitter),
        "A kernel matrix of points that are close is singular in floating point; a small multiple of the identity makes it "
        "positive definite (Rasmussen & Williams 2006, section 2.2).",
        keeps_function=False,
    ),
)
