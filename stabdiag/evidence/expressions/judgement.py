"""From a candidate and its confirmation to a finding: how bad it is, and the facts that every rule of SD6 tells alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from stabdiag.evidence.expressions.forms import (
    EXP,
    GENERAL,
    LOGSUMEXP_BY_HAND,
    QUOTIENT,
    REPLACEABLE,
    ROOT,
    SOFTMAX_BY_HAND,
    Expression,
    expressions,
)
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Location, Op, Run, Trace
from stabdiag.trace.dependence import dependence
from stabdiag.trace.formats import PRECISIONS

REACHED = 20.0
"""Logits and exponents of this magnitude are nothing unusual once a model is trained; measured in `benchmarks/detection/`."""

ROUNDING = 1e-4
"""Share of the largest operand that a negative one must have to be more than what a difference of squares leaves behind."""

DEGENERATE = ("zero", "constant")


@dataclass(frozen=True)
class Judgement:
    """One expression, what its confirmation found, and the verdict.

    Attributes:
        breaks: format -> kind -> where, see `stabdiag/probe/experiments/confirmation.py`; empty when it could not be run.
        reach: smallest multiple of what was observed at which float32 breaks; inf where only zeros or constants do.
    """

    trace: Trace
    run: Run
    expression: Expression
    severity: Severity
    result: dict[str, Any]

    @property
    def op(self) -> Op:
        """The op that is reported."""
        return self.run.ops[self.expression.op]

    @property
    def cause(self) -> Op | None:
        """The op that makes the operand dangerous."""
        return None if self.expression.cause is None else self.run.ops[self.expression.cause]

    @property
    def location(self) -> Location | None:
        """The line of the reported op."""
        return self.op.location

    @property
    def breaks(self) -> dict[str, dict[str, Any]]:
        """Format -> kind -> where."""
        found: dict[str, dict[str, Any]] = self.result.get("breaks", {})
        return found

    @property
    def reach(self) -> float:
        """See the class."""
        return reach(self.breaks, ("float32",))

    @property
    def happens(self) -> bool:
        """Whether it breaks at what was observed, in float32."""
        return any(b["how"] == "observed" for b in self.breaks.get("float32", {}).values())

    @property
    def leaves_domain(self) -> bool:
        """Whether a root's operand goes below 0 by more than rounding: its value is NaN, not just its gradient infinite."""
        where = self.breaks.get("float32", {}).get("value", {})
        low, high = where.get("low") or 0.0, where.get("high") or 0.0
        return self.expression.form == ROOT and low < -ROUNDING * max(-low, abs(high))

    def observed(self) -> str:
        """The observed range of the link in words."""
        seen = self.result.get("observed", {})
        if self.expression.gap_dim is not None and seen.get("gap") is not None:
            return f"spread {seen['gap']:.3g}"
        if seen.get("low") is None or seen.get("high") is None:
            return "range unknown"
        return f"range {seen['low']:.3g} to {seen['high']:.3g}"

    def limits(self) -> str:
        """Where it breaks in each format, in words: "gradient from 88.8, value from 104 in float32; …"."""
        parts = []
        for format, kinds in self.breaks.items():
            told = [
                f"{kind} from {limit:.3g}"
                for kind, where in sorted(kinds.items(), key=lambda item: item[1]["factor"])
                if (limit := limit_of(self.expression.form, where)) is not None
            ]
            if told:
                parts.append(f"{', '.join(told)} in {format}")
        return "; ".join(parts)

    def finding(self, message: str, label: str, fixes: list[Fix], *, notes: tuple[str, ...] = ()) -> Finding:
        """The finding, with what all rules of SD6 have in common."""
        told = list(notes)
        cause = self.cause
        if cause is not None and cause.location is not None and cause.location != self.location:
            told.insert(0, f"cause: `{cause.name.strip('_')}` at {cause.location.path}:{cause.location.line}")
        told.append(f"evidence: {self._evidence()}")
        if (driven := self.result.get("driven")) is not None:
            size = (
                f"a spread of {driven['gap']:.3g}"
                if driven["gap"] is not None
                else f"{driven['low']:.3g} to {driven['high']:.3g}"
            )
            told.append(f"evidence: gradient ascent on the inputs takes it from {self.observed()} to {size}")
        return Finding(
            "",
            "",
            self.severity,
            message,
            **at(self.op),
            precisions=[p for p in PRECISIONS if p in self.breaks] or [self.run.precision],
            label=label,
            notes=told,
            evidence={
                "op_index": self.op.index,
                "form": self.expression.form,
                "observed": self.result.get("observed", {}),
                "breaks": self.breaks,
                "reaches": sorted(
                    i for i in {self.expression.danger, self.expression.cause, *self.expression.path} if i is not None
                ),
            },
            fixes=fixes,
        )

    def _evidence(self) -> str:
        if not self.breaks:
            return f"the pattern only; {self.result['status']}"
        if self.happens:
            return "not finite on the probe batch itself"
        ways = {
            "scale": "scaled by {:.3g}",
            "negate": "scaled by -{:.3g}",
            "raise": "raised by {:.3g} times its largest magnitude",
            "lower": "lowered by {:.3g} times its largest magnitude",
            "zero": "all 0",
            "constant": "constant",
        }
        format, kinds = next(iter(self.breaks.items()))
        kind, where = min(kinds.items(), key=lambda item: item[1]["factor"])
        return f"the {kind} breaks in {format} when what feeds it is {ways[where['how']].format(where['factor'])}"


def limit_of(form: str, where: dict[str, Any]) -> float | None:
    """The magnitude of the link (its spread for a softmax) at which something breaks."""
    if where.get("gap") is not None:
        return float(where["gap"])
    if where.get("at") is not None and form not in (SOFTMAX_BY_HAND, LOGSUMEXP_BY_HAND):  # there one term breaks its row
        return float(where["at"])
    ends = [abs(e) for e in (where.get("low"), where.get("high")) if e is not None]
    return max(ends) if ends else None


def reach(breaks: dict[str, dict[str, Any]], formats: tuple[str, ...]) -> float:
    """Smallest factor at which any of the formats breaks; inf where none does but at zeros and constants."""
    found = [b["factor"] for f in formats for b in breaks.get(f, {}).values() if b["how"] not in DEGENERATE]
    return min(found, default=inf)


def judgements(trace: Trace, *forms: str, within: float, trapped: bool = False) -> Iterator[Judgement]:
    """The expressions of some forms that break, the worst of each line.

    Args:
        trace: with the confirmation's results.
        forms: names from `stabdiag.evidence.expressions.forms`; all when there are none.
        within: breaks within this multiple of the observed range are errors.
        trapped: those whose value a where hides while the gradient is lost; else those it does not hide.
    """
    run = trace.run("float32")
    if run is None:
        return
    results = trace.experiments.get("confirmation", {}).get("expressions", {})
    worst: dict[object, Judgement] = {}
    roots_of_quotients = {i for e in expressions(run) if e.form == QUOTIENT and _breaks(results, e) for i in e.upstream.ops}
    for expression in expressions(run):
        result = results.get(expression.key)
        if result is None or (forms and expression.form not in forms):
            continue
        if (expression.selected is not None and _hidden(result)) is not trapped:
            continue
        if expression.form == ROOT and expression.op in roots_of_quotients:
            continue  # x / sqrt(Σx²): told once, at the division
        severity = _severity(run, expression, result, within)
        if severity is None:
            continue
        judgement = Judgement(trace, run, expression, severity, result)
        place = judgement.location
        key = place and (place.path, place.line)
        if key not in worst or _badness(judgement) > _badness(worst[key]):
            worst[key] = judgement
    yield from worst.values()


def _breaks(results: dict[str, Any], expression: Expression) -> bool:
    return "float32" in results.get(expression.key, {}).get("breaks", {})


def _hidden(result: dict[str, Any]) -> bool:
    """The value breaks, the where behind it takes another one, and the gradient is lost all the same."""
    kinds = result.get("breaks", {}).get("float32", {})
    return set(kinds) == {"gradient"} and bool(kinds["gradient"]["hidden"])


def _badness(judgement: Judgement) -> tuple[int, float]:
    return (judgement.severity.rank, -judgement.reach)


def _severity(run: Run, expression: Expression, result: dict[str, Any], within: float) -> Severity | None:
    """Error, warning, information or nothing; one step milder where the author cannot edit the line."""
    breaks = result.get("breaks", {})
    if not breaks:
        return Severity.INFO if result["status"].startswith("not run") and expression.form in REPLACEABLE else None
    if "float32" not in breaks:  # guarded there; an epsilon that a narrow format cannot hold is SD505
        return None
    if any(b["how"] == "observed" for b in breaks["float32"].values()):
        return Severity.ERROR
    severity = _by_form(run, expression, result, within)
    location = run.ops[expression.op].location
    if location is not None and location.library:
        return {Severity.ERROR: Severity.WARNING, Severity.WARNING: Severity.INFO}.get(severity)
    return severity


def _by_form(run: Run, expression: Expression, result: dict[str, Any], within: float) -> Severity:
    form, breaks = expression.form, result["breaks"]
    near = reach(breaks, ("float32",)) <= within
    if form in REPLACEABLE:
        near = reach(breaks, tuple(breaks)) <= within or _reached(expression, breaks)
    near = near or _driven_there(expression, result)
    seen = result.get("observed", {})
    if form == QUOTIENT and (seen.get("low") or 0.0) < 0 < (seen.get("high") or 0.0):
        near = True  # it passes through 0 between two elements of one batch
    if form == EXP and not _hidden(result):
        if not dependence(run).driven(expression.upstream.sources):
            return Severity.WARNING if near else Severity.INFO
        return Severity.ERROR if reach(breaks, ("float32",)) <= within else Severity.WARNING
    if near:
        return Severity.ERROR
    far = form in GENERAL and min((b["source"] for b in breaks["float32"].values()), default=inf) > REACHED
    return Severity.INFO if far else Severity.WARNING


def _driven_there(expression: Expression, result: dict[str, Any]) -> bool:
    """Whether gradient ascent on the inputs takes the link past its limit in float32."""
    driven = result.get("driven")
    limits = [limit_of(expression.form, where) for where in result["breaks"].get("float32", {}).values()]
    found = [limit for limit in limits if limit]
    if driven is None or not found or expression.form in GENERAL:
        return False
    size = driven["gap"] if expression.gap_dim is not None else max(abs(driven["low"]), abs(driven["high"]))
    return size is not None and size >= min(found)


def _reached(expression: Expression, breaks: dict[str, Any]) -> bool:
    """Whether it breaks at a magnitude that training gets to, in any probed format."""
    limits = [limit_of(expression.form, where) for kinds in breaks.values() for where in kinds.values()]
    return min((limit for limit in limits if limit is not None), default=inf) <= REACHED
