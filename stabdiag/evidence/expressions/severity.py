"""How bad an unstable expression is, by how plausible the state is in which it breaks."""

from __future__ import annotations

from math import inf
from typing import Any

from stabdiag.evidence.expressions.forms import EXP, GENERAL, QUOTIENT, RATIO, REPLACEABLE, ROOT, Expression
from stabdiag.evidence.expressions.limits import limits_of
from stabdiag.evidence.expressions.plausible import DEGENERATE, REACHED, SPECIAL, near, plausibility
from stabdiag.finding import Severity
from stabdiag.trace import Run
from stabdiag.trace.dependence import dependence
from stabdiag.trace.formats import FORMATS, format_of


def severity_of(run: Run, expression: Expression, result: dict[str, Any], within: float) -> Severity | None:
    """Error, warning, information or nothing; one step milder where the author cannot edit the line."""
    breaks = result.get("breaks", {})
    if not breaks:
        return Severity.INFO if result["status"] == "not run" and expression.form in REPLACEABLE else None
    if "float32" not in breaks:  # guarded there; an epsilon that a narrow format cannot hold is SD505
        return None
    if any(b["how"] == "observed" for b in breaks["float32"].values()):
        return Severity.ERROR
    severity = _by_form(run, expression, result, within)
    location = run.ops[expression.op].location
    if location is not None and location.library and severity is not None:
        return {Severity.ERROR: Severity.WARNING, Severity.WARNING: Severity.INFO}.get(severity)
    return severity


def _by_form(run: Run, expression: Expression, result: dict[str, Any], within: float) -> Severity | None:
    form, breaks = expression.form, result["breaks"]
    seen = result.get("observed", {})
    wide = list(breaks["float32"].values())
    if form in REPLACEABLE:
        close = any(near(b, within) for kinds in breaks.values() for b in kinds.values())
        close = close or _reached(run, expression, breaks) or _driven_there(run, expression, result)
        return Severity.ERROR if close else Severity.WARNING
    if form == QUOTIENT and expression.upstream.sources and (seen.get("low") or 0.0) < 0 < (seen.get("high") or 0.0):
        return Severity.ERROR  # it passes through 0 between two elements of one batch
    spread = result.get("spread")
    if result.get("inputs"):  # no layer in between that training moves: the operand's own spread counts
        raw = dependence(run).maker(expression.operand) is None
        if raw and (seen.get("low") or 0.0) > 0:
            return Severity.INFO  # prices, rates, probabilities: positive as the author's data come
        beyond = [b for b in wide if b["how"] not in SPECIAL and (b["low"] is None or b["low"] < 0)]
        if beyond and spread is not None and spread <= within:
            return Severity.ERROR
        return Severity.WARNING if any(b["how"] in SPECIAL or plausibility(b) <= 1 for b in wide) else Severity.INFO
    if any(near(b, within) for b in wide):
        return Severity.ERROR
    if form not in GENERAL and form not in (EXP, RATIO):
        return Severity.WARNING
    if hidden(result) and expression.selected is not None:  # a trap in any format that training gets to
        within_reach = any(plausibility(b) <= 1 for kinds in breaks.values() for b in kinds.values())
        return Severity.WARNING if within_reach else Severity.INFO
    if form == RATIO or any(plausibility(b) <= 1 for b in wide):
        return Severity.WARNING
    special = [b["how"] for b in wide if b["how"] in SPECIAL]
    if any(how not in DEGENERATE for how in special):
        return Severity.WARNING
    if special and ((spread is not None and spread <= within) or (spread is None and form != ROOT)):
        return Severity.WARNING
    return Severity.INFO


def _driven_there(run: Run, expression: Expression, result: dict[str, Any]) -> bool:
    """Whether gradient ascent on the inputs takes the link past its limit in float32."""
    driven = result.get("driven")
    if driven is None or expression.form in GENERAL:
        return False
    if expression.gap_dim is not None:
        return driven["gap"] is not None and driven["gap"] >= min(abs(at) for at in _ends(run, expression, "float32"))
    ends = limits_of(run, expression, FORMATS["float32"])
    return any(driven["high"] >= e.at if e.side == "above" else driven["low"] <= e.at for e in ends)


def _ends(run: Run, expression: Expression, format: str) -> list[float]:
    return [limit.at for limit in limits_of(run, expression, format_of(format))]


def _reached(run: Run, expression: Expression, breaks: dict[str, Any]) -> bool:
    """Whether it breaks at a magnitude that training gets to, in any probed format."""
    return min((abs(at) for format in breaks for at in _ends(run, expression, format)), default=inf) <= REACHED


def hidden(result: dict[str, Any]) -> bool:
    """The value breaks, the where behind it takes another one, and the gradient is lost all the same."""
    kinds = result.get("breaks", {}).get("float32", {})
    return set(kinds) == {"gradient"} and bool(kinds["gradient"]["hidden"])
