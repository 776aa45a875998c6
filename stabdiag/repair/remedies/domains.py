"""Domains: operands kept inside the range in which a function, or a format, has values and slopes."""

from __future__ import annotations

from math import ceil, log, log10

from stabdiag.repair.editing.pattern import Match, constant
from stabdiag.repair.editing.rewrite import Rule, is_open_power, rewrite, unless_guarded, when
from stabdiag.repair.editing.source import Source
from stabdiag.repair.margins import as_code, formats_of, guard, operands_at
from stabdiag.repair.remedy import Case, Edit, Remedy


def _clamp_domain(source: Source, case: Case) -> str | None:
    """Clamp the operand just inside ±1, at what the narrowest format of the finding tells from 1."""
    roundoff = max(f.unit_roundoff for f in formats_of(case) if f.name == "float32" or "float32" not in case.finding.precisions)
    inside = as_code(10.0 ** ceil(log10(8 * roundoff)))
    names = ("acos", "arccos", "asin", "arcsin", "atanh", "arctanh")
    clamped = f"x.clamp(-1 + {inside}, 1 - {inside})"
    return rewrite(source, case.finding.location, [(f"{n}(x)", unless_guarded("x", f"torch.{n}({clamped})")) for n in names])


def _log1p_domain(source: Source, case: Case) -> str | None:
    """log1p ends at -1: keep its operand above, where it does not reach below already by much."""
    found = operands_at(case, ("log1p",))
    if not found:
        return None
    roundoff = max(f.unit_roundoff for f in formats_of(case))
    above = as_code(10.0 ** ceil(log10(8 * roundoff)))
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
    floor = as_code(least)
    by_op: dict[tuple[str, ...], list[Rule]] = {
        ("log",): [("log(x)", unless_guarded("x", f"torch.log(F.softplus(x) + {floor})"))],
        ("log1p",): [("log1p(x)", unless_guarded("x", "torch.log1p(F.softplus(x))"))],
        ("pow",): [("pow(x, c)", when(is_open_power, f"(F.softplus(x) + {floor}) ** c"))],
        ("sqrt", "rsqrt"): [(f"{n}(x)", unless_guarded("x", f"torch.{n}(F.softplus(x) + {floor})")) for n in ("sqrt", "rsqrt")],
        ("exp",): [("exp(x)", "F.softplus(x)")],
    }
    for ops, rules in by_op.items():
        found = operands_at(case, ops)
        if found and min(o.low for o in found) < 0:
            return rewrite(source, case.finding.location, rules)
    return None


def _clamped_cast(source: Source, case: Case) -> str | None:
    """Clamp to the range of the target in front of a cast."""
    limits = "torch.finfo(t).min, torch.finfo(t).max"
    rules: list[Rule] = [
        (form, unless_guarded("x", f"x.clamp({limits}).to(t)")) for form in ("to(x, t)", "to(x, dtype=t)", "type(x, t)")
    ]
    half = "torch.finfo(torch.float16).min, torch.finfo(torch.float16).max"
    rules.append(("half(x)", unless_guarded("x", f"x.clamp({half}).half()")))
    return rewrite(source, case.finding.location, rules)


REMEDIES = (
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
        "clamp-before-cast",
        "Clamp to the range of the format before the cast",
        Edit(_clamped_cast),
        "What lies beyond the range of the target becomes infinite in the cast, and stays so.",
        keeps_function=True,
    ),
)
