"""Guards: an operand kept away from where its function has no value or no slope.

The constant of a guard comes from the data and the formats, not from habit. It lies at least MARGIN times below the smallest
value that the operand had in the reference run, so that no healthy value is touched, and above what every format of the finding
can hold together with its reciprocal. Where no number is both, there is no guard: a stable form is needed, or nothing helps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil, floor, inf, log, log10

import libcst as cst

from stabdiag.judging.operands import Operand
from stabdiag.repair.editing import flow
from stabdiag.repair.editing.pattern import Match, constant, is_epsilon
from stabdiag.repair.editing.rewrite import Rule, is_guarded, is_open_power, nearby, rewrite, unless_guarded, when
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import number
from stabdiag.repair.remedy import Case, Edit, Remedy
from stabdiag.trace import Location
from stabdiag.trace.formats import FORMATS, Format, format_of

MARGIN = 1e3
"""Least distance between a guard and the smallest healthy value: training may shrink that by as much before it is felt."""
FAR = 1e6
"""Distance that is kept where the formats leave room: a millionth is below what float32 resolves beside the value."""
USUAL = 1e-6
"""No guard is larger: for operands of any size this is small."""
_LOGARITHMS = ("log", "log2", "log10")
_ROOTS = ("sqrt", "rsqrt", "pow", "linalg_vector_norm")
_DIVISIONS = ("div", "reciprocal")
_WITH_EPSILON = (*_LOGARITHMS, "sqrt", "rsqrt", "pow", *_DIVISIONS)


def operands_at(case: Case, ops: tuple[str, ...], position: int | None = None) -> list[Operand]:
    """What some ops on the line of the finding were given.

    Args:
        position: among the op's tensors; None for the first, -1 for the last.
    """
    at = case.finding.location
    found = [o for o in case.report.operands if at is not None and (o.path, o.line) == (at.path, at.line) and o.op in ops]
    here = [o for o in found if at is not None and at.column is not None and o.column == at.column]
    chosen = here if here and any(o.op == case.finding.op.rstrip("_") for o in here) else found
    wanted = {o.op: max(p.position for p in chosen if p.op == o.op) if position == -1 else position or 0 for o in chosen}
    return [o for o in chosen if o.position == wanted[o.op]]


def formats_of(case: Case) -> list[Format]:
    """The formats that a guard must work in: those that the finding shows in."""
    names = {name.removeprefix("amp-") for name in case.finding.precisions} & set(FORMATS)
    return [format_of(name) for name in sorted(names or {"float32"})]


def least(format: Format) -> float:
    """The smallest guard that a format holds: a normal number whose reciprocal is a quarter of the largest one at most."""
    return max(format.tiny, 4.0 / format.max)


def guard(healthy: float, formats: list[Format]) -> float | None:
    """The constant for an operand, a power of ten; None where none is below the data and above what the formats lose.

    Args:
        healthy: smallest non-zero magnitude of the operand where nothing is wrong, inf when it is not known.
        formats: in which the guard must work.
    """
    lowest = 10.0 ** ceil(log10(max(least(f) for f in formats)) - 1e-9)
    wanted = min(USUAL, healthy / FAR)
    chosen = max(lowest, 10.0 ** floor(log10(wanted) + 1e-9)) if wanted > 0 else lowest
    return chosen if chosen * MARGIN <= healthy else None


def _guard_at(case: Case, ops: tuple[str, ...], position: int) -> tuple[float, float] | None:
    """(guard, smallest healthy value) for the operands of some ops at the finding; None without one, or for signed operands."""
    found = operands_at(case, ops, position)
    if not found or any(o.low < 0 and o.op in _DIVISIONS for o in found):
        return None
    healthy = min(o.smallest for o in found)
    constant = guard(healthy, formats_of(case))
    return None if constant is None else (constant, healthy)


def _as_code(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _guarding(
    rules: Callable[[str], list[Rule]], ops: tuple[str, ...], position: int = 0
) -> tuple[Edit, Callable[[Case], str]]:
    """An edit whose templates need a guard, and the remark that states its margin."""

    def make(source: Source, case: Case) -> str | None:
        found = _guard_at(case, ops, position)
        return rewrite(source, case.finding.location, rules(_as_code(found[0]))) if found is not None else None

    def remark(case: Case) -> str:
        found = _guard_at(case, ops, position)
        if found is None or found[1] == inf:
            return ""
        return f"{_as_code(found[0])} is {found[1] / found[0]:.1g} times below the smallest value here, {found[1]:.2g}"

    return Edit(make), remark


def _log_rules(least: str) -> list[Rule]:
    return [
        ("log(x + eps)", f"torch.log(x.clamp_min({least}))"),
        ("log(eps + 1 - x)", f"torch.log((1 - x).clamp_min({least}))"),
        *((f"{name}(x)", unless_guarded("x", f"torch.{name}(x.clamp_min({least}))")) for name in _LOGARITHMS),
    ]


def _every_log(source: Source, case: Case) -> str | None:
    """Clamp every logarithm of the line, since log p seldom stands without log (1 - p); an epsilon that is absorbed goes."""
    at, found = case.finding.location, _guard_at(case, _LOGARITHMS, 0)
    if at is None or found is None:
        return None
    rules = _log_rules(_as_code(found[0]))
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
    return isinstance(name, cst.Name) and name.value in _LOGARITHMS


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


def _absorbed_rules(least: str) -> list[Rule]:
    return [(form, f"(1 - p).clamp_min({least})") for form in ("eps + 1 - p", "1 + eps - p", "1 - p + eps")]


def _stable_epsilon(source: Source, case: Case) -> str | None:
    """1e-8 + 1 - p is 1 - p: clamp 1 - p instead of adding the epsilon to it."""
    constant = guard(1.0, formats_of(case))
    return rewrite(source, case.finding.location, _absorbed_rules(_as_code(constant))) if constant is not None else None


def _clamp_domain(source: Source, case: Case) -> str | None:
    """Clamp the operand just inside ±1, at what the narrowest format of the finding tells from 1."""
    roundoff = max(f.unit_roundoff for f in formats_of(case) if f.name == "float32" or "float32" not in case.finding.precisions)
    inside = _as_code(10.0 ** ceil(log10(8 * roundoff)))
    names = ("acos", "arccos", "asin", "arcsin", "atanh", "arctanh")
    clamped = f"x.clamp(-1 + {inside}, 1 - {inside})"
    return rewrite(source, case.finding.location, [(f"{n}(x)", unless_guarded("x", f"torch.{n}({clamped})")) for n in names])


def _log1p_domain(source: Source, case: Case) -> str | None:
    """log1p ends at -1: keep its operand above, where it does not reach below already by much."""
    found = operands_at(case, ("log1p",))
    if not found:
        return None
    roundoff = max(f.unit_roundoff for f in formats_of(case))
    above = _as_code(10.0 ** ceil(log10(8 * roundoff)))
    return rewrite(
        source, case.finding.location, [("log1p(x)", unless_guarded("x", f"torch.log1p(x.clamp_min(-1 + {above}))"))]
    )


_BOUNDS = (10.0, 20.0, 40.0, 80.0)


def _exponent_bound(case: Case) -> float | None:
    """The largest exponent to let through: at least twice what was seen, and within the narrowest format of the finding."""
    limit = min(log(f.max) for f in formats_of(case))
    highest = max((o.high for o in operands_at(case, ("exp", "expm1"))), default=0.0)
    fitting = [bound for bound in _BOUNDS if bound < limit]
    return next((bound for bound in fitting if bound >= 2 * highest), fitting[-1] if highest < fitting[-1] else None)


def _behind_exp(source: Source, match: Match) -> str | None:
    largest = constant(source, match.bound["c"])
    return f"torch.exp(z.clamp(max={log(largest):.4g}))" if largest is not None and largest > 0 else None


def _clamp_exponent(source: Source, case: Case) -> str | None:
    """A clamp behind exp moves in front of it; an open exponent is bounded."""
    rules: list[Rule] = [
        ("clamp(exp(z), max=c)", _behind_exp),
        ("clamp_max(exp(z), c)", _behind_exp),
        ("clamp(exp(z), eps, c)", _behind_exp),
    ]
    bound = _exponent_bound(case)
    if bound is not None:
        rules += [(f"{n}(z)", unless_guarded("z", f"torch.{n}(z.clamp(max={bound}))")) for n in ("exp", "expm1")]
    return rewrite(source, case.finding.location, rules)


def _positive(source: Source, case: Case) -> str | None:
    """Only for what is signed: a softplus around what is never negative would bound it from below."""
    least = guard(1.0, formats_of(case))
    if least is None:
        return None
    floor = _as_code(least)
    by_op: dict[tuple[str, ...], list[Rule]] = {
        ("log",): [("log(x)", unless_guarded("x", f"torch.log(F.softplus(x) + {floor})"))],
        ("pow",): [("pow(x, c)", when(is_open_power, f"(F.softplus(x) + {floor}) ** c"))],
        ("sqrt", "rsqrt"): [(f"{n}(x)", unless_guarded("x", f"torch.{n}(F.softplus(x) + {floor})")) for n in ("sqrt", "rsqrt")],
        ("exp",): [("exp(x)", "F.softplus(x)")],
    }
    for ops, rules in by_op.items():
        found = operands_at(case, ops)
        if found and min(o.low for o in found) < 0:
            return rewrite(source, case.finding.location, rules)
    return None


def _larger_epsilon(source: Source, case: Case) -> str | None:
    """Change the literal where it stands: in the expression, as a name's or argument's default, or in a constructor's call."""
    marked = source.at(case.finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        if not isinstance(node, cst.BaseNumber | cst.Name | cst.Attribute) or not is_epsilon(source, node):
            continue
        literals = {id(n): n for n in _literals(source, node) if (number(n) or 0.0) > 0}
        largest = max((number(n) or 0.0 for n in literals.values()), default=0.0)
        guarded = operands_at(case, _WITH_EPSILON, -1)
        enough = guard(min((o.smallest_above(2 * largest) for o in guarded), default=inf), formats_of(case))
        if literals and enough is not None and largest < enough:
            return source.replaced(*((n, _as_code(enough)) for n in literals.values()))
    return None


def _literals(source: Source, node: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    """The literals that an expression may have its value from."""
    if number(node) is not None:
        yield node
    elif isinstance(node, cst.Name):
        assign = flow.assignment(source, node)
        if assign is not None:
            yield from _literals(source, assign.value)
        else:
            yield from _of_argument(source, node)
    elif isinstance(node, cst.Attribute):
        for value in _of_attribute(source, node.attr.value):
            yield from _literals(source, value)


def _of_attribute(source: Source, name: str) -> Iterator[cst.BaseExpression]:
    for assign in source.all(cst.Assign):
        for target in assign.targets:
            pairs: list[tuple[cst.CSTNode, cst.BaseExpression]] = [(target.target, assign.value)]
            if isinstance(target.target, cst.Tuple) and isinstance(assign.value, cst.Tuple):
                elements = zip(target.target.elements, assign.value.elements, strict=False)
                pairs = [(left.value, right.value) for left, right in elements]
            for made, value in pairs:
                if isinstance(made, cst.Attribute) and made.attr.value == name:
                    yield value


def _of_argument(source: Source, name: cst.Name) -> Iterator[cst.BaseExpression]:
    """The default of an argument, and what calls in the file give for it by name; for a name of the file, its assignment."""
    function = source.around(name, cst.FunctionDef)
    for param in (*function.params.params, *function.params.kwonly_params) if function is not None else ():
        if param.name.value == name.value:
            if param.default is not None:
                yield param.default
            for arg in source.all(cst.Arg, lambda a: a.keyword is not None and a.keyword.value == name.value):
                if number(arg.value) is not None:
                    yield arg.value
            return
    if (assign := flow.of_file(source, name.value)) is not None:
        yield assign.value


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
    "m + 1e-4 * m.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] * torch.eye(m.shape[-1], dtype=m.dtype, device=m.device)"
)
"""1e-4 of the mean diagonal: some 800 times the roundoff of float32, which is what a factorisation of 1,000 rows loses."""


def _clamped_cast(source: Source, case: Case) -> str | None:
    """Clamp to the range of the target in front of a cast."""
    limits = "torch.finfo(t).min, torch.finfo(t).max"
    rules: list[Rule] = [
        (form, unless_guarded("x", f"x.clamp({limits}).to(t)")) for form in ("to(x, t)", "to(x, dtype=t)", "type(x, t)")
    ]
    half = "torch.finfo(torch.float16).min, torch.finfo(torch.float16).max"
    rules.append(("half(x)", unless_guarded("x", f"x.clamp({half}).half()")))
    return rewrite(source, case.finding.location, rules)


def _every_division(source: Source, case: Case) -> str | None:
    """Clamp what is divided by, in `a / b` and in `a /= b`."""
    text, found = _QUOTIENT.make(source, case), _guard_at(case, _DIVISIONS, -1)
    marked = source.at(case.finding.location)
    line = source.around(marked, cst.AugAssign) if marked is not None else None
    if text is not None or found is None or line is None or not isinstance(line.operator, cst.DivideAssign):
        return text
    if is_guarded(source, line.value):
        return None
    simple = isinstance(line.value, cst.Name | cst.Call | cst.Attribute | cst.Subscript)
    code = source.code(line.value) if simple else f"({source.code(line.value)})"
    return source.replaced((line.value, f"{code}.clamp_min({_as_code(found[0])})"))


_LOG, _LOG_REMARK = Edit(_every_log), _guarding(_log_rules, _LOGARITHMS)[1]
_ROOT, _ROOT_REMARK = _guarding(_root_rules, _ROOTS)
_INSIDE, _INSIDE_REMARK = _guarding(_inside_rules, _ROOTS)
_QUOTIENT, _DIVISION_REMARK = _guarding(_division_rules, _DIVISIONS, -1)

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
        "larger-epsilon",
        "Use an epsilon that the format holds",
        Edit(_larger_epsilon),
        "1e-8 is 0 in float16, whose smallest number is 6e-8, and next to 1 it is lost in every 16-bit format.",
        keeps_function=True,
    ),
    Remedy(
        "stable-form",
        "Add the epsilon where the value is small",
        Edit(_stable_epsilon),
        "1e-8 + 1 - p is 1 - p: next to 1 the epsilon is lost. (1 - p) clamped from below is not.",
        keeps_function=True,
    ),
    Remedy(
        "clamp-domain",
        "Stay inside the domain of an inverse function",
        Edit(_clamp_domain),
        "acos, asin and atanh have infinite slopes at ±1, and rounding puts a cosine beyond.",
        keeps_function=True,
    ),
    Remedy(
        "log1p-domain",
        "Keep the operand of log1p above -1",
        Edit(_log1p_domain),
        "log1p(-1) is -inf, and below it there is no value.",
        keeps_function=True,
    ),
    Remedy(
        "clamp-exponent",
        "Bound the exponent, not its exponential",
        Edit(_clamp_exponent),
        "exp overflows at 88.7, in float16 at 11.09; a clamp behind it comes too late, and its gradient is 0 · inf.",
        keeps_function=True,
    ),
    Remedy(
        "positive",
        "Make the operand positive",
        Edit(_positive),
        "`softplus` is above 0 everywhere and close to its operand where that is large: a scale, a rate, a variance stays one.",
    ),
    Remedy(
        "diagonal-jitter",
        "Add a little to the diagonal before the factorisation",
        Edit(_jitter),
        "A kernel matrix of points that are close is singular in floating point; a small multiple of the identity makes it "
        "positive definite (Rasmussen & Williams 2006, section 2.2).",
        keeps_function=False,
    ),
    Remedy(
        "clamp-before-cast",
        "Clamp to the range of the format before the cast",
        Edit(_clamped_cast),
        "What lies beyond the range of the target becomes infinite in the cast, and stays so.",
        keeps_function=True,
    ),
)
