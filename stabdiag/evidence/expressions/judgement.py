"""From a candidate and its confirmation to a finding: how bad it is, and the facts that every rule of SD6 tells alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from stabdiag.evidence.expressions.forms import (
    LOG_OF_SOFTMAX,
    QUOTIENT,
    ROOT,
    SOFTMAX_BY_HAND,
    Expression,
    expressions,
)
from stabdiag.evidence.expressions.limits import breaking_points
from stabdiag.evidence.expressions.plausible import DEGENERATE, plausibility
from stabdiag.evidence.expressions.severity import hidden, severity_of
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Location, Op, Run, Trace
from stabdiag.trace.dependence import dependence
from stabdiag.trace.formats import PRECISIONS

ROUNDING = 1e-4
"""Share of the largest operand that a negative one must have to be more than what a difference of squares leaves behind."""


@dataclass(frozen=True)
class Judgement:
    """One expression, what its confirmation found, and the verdict.

    Attributes:
        breaks: format -> kind -> where, see `stabdiag/probe/experiments/confirmation.py`; empty when it could not be run.
        reach: how plausible the state is in which float32 breaks, see `stabdiag/evidence/expressions/plausible.py`.
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

    @property
    def learned(self) -> bool:
        """Whether trained parameters alone make the operand."""
        return not self.expression.upstream.sources

    @property
    def touches(self) -> bool:
        """Whether the operand was never below 0, neither observed nor where it breaks: an energy, a norm."""
        lows = [self.result.get("observed", {}).get("low"), *(b["low"] for b in self.breaks.get("float32", {}).values())]
        return all(low is not None and low >= 0 for low in lows)

    @property
    def determinant(self) -> bool:
        """Whether the operand is a determinant or its magnitude."""
        maker = dependence(self.run).maker(self.expression.signed)
        return maker is not None and maker.name in ("_linalg_det", "linalg_det", "det")

    def observed(self) -> str:
        """The observed range of the link in words."""
        seen = self.result.get("observed", {})
        if self.expression.gap_dim is not None and seen.get("gap") is not None:
            return f"spread {seen['gap']:.3g}"
        if seen.get("low") is None or seen.get("high") is None:
            return "range unknown"
        return f"range {seen['low']:.3g} to {seen['high']:.3g}"

    def limits(self) -> str:
        """Where it breaks in each format that breaks: the true limits of the op, in terms of the link."""
        formats = list(self.breaks) or ["float32"]
        return breaking_points(self.run, self.expression, formats)

    def finding(self, message: str, label: str, fixes: list[Fix], *, notes: tuple[str, ...] = ()) -> Finding:
        """The finding, with what all rules of SD6 have in common."""
        told = list(notes)
        cause = self.cause
        if cause is not None and cause.location is not None and cause.location != self.location:
            told.insert(0, f"cause: `{cause.name.strip('_')}` at {cause.location.path}:{cause.location.line}")
        told.append(f"evidence: {self._evidence()}")
        if self.expression.calls > 1:
            told.append(f"evidence: the line computes this {self.expression.calls} times, here where its values are largest")
        if (driven := self.result.get("driven")) is not None:
            size = (
                f"a spread of {driven['gap']:.3g}"
                if driven["gap"] is not None
                else f"{driven['low']:.3g} to {driven['high']:.3g}"
            )
            told.append(f"evidence: gradient ascent on the inputs takes it from {self.observed()} to {size}")
        return Finding(
            self.severity,
            message,
            **at(self.op),
            precisions=[p for p in PRECISIONS if p in self.breaks] or [self.run.precision],
            label=label,
            notes=told,
            blocks=self._stops(),
            states=[where["state"] for where in self.breaks.get("float32", {}).values() if where.get("state")],
            evidence={
                "op_index": self.op.index,
                "form": self.expression.form,
                "observed": self.result.get("observed", {}),
                "calls": self.expression.calls,
                "breaks": {
                    format: {kind: {k: v for k, v in where.items() if k != "state"} for kind, where in kinds.items()}
                    for format, kinds in self.breaks.items()
                },
                "reaches": sorted(
                    i for i in {self.expression.danger, self.expression.cause, *self.expression.path} if i is not None
                ),
            },
            fixes=fixes,
        )

    def _stops(self) -> list[str]:
        """The precisions in which it breaks at what was observed, and loss or gradients are not finite."""
        formats = {f for f, kinds in self.breaks.items() if any(b["how"] == "observed" for b in kinds.values())}
        broken = (run.precision for run in self.trace.runs if not (run.seed or run.step or run.error or run.finite))
        return [precision for precision in broken if precision.removeprefix("amp-") in formats]

    def _evidence(self) -> str:
        if not self.breaks:
            return f"the pattern only; {': '.join(self.result[key] for key in ('status', 'why') if key in self.result)}"
        if self.happens:
            return "not finite on the probe batch itself"
        format, kinds = next(iter(self.breaks.items()))
        kind, where = min(kinds.items(), key=lambda item: plausibility(item[1]))
        return f"the {kind} breaks in {format} {_way(where)}"


def _way(where: dict[str, Any]) -> str:
    """How the state differs from what was observed."""
    if where["group"] == "parameters":
        return f"when training moves the parameters it is made of by {where['moved']:.2g}"
    how = where["how"]
    shapes = {
        "zero": "when what feeds it is 0",
        "constant": "when what feeds it is constant",
        "duplicate": "when two samples are equal",
        "aligned": "when what feeds it is parallel",
        "empty": "when a row of the matrix that relates rows to each other is empty",
    }
    return shapes.get(how, f"when what feeds it moves by {where['moved']:.2g} of its standard deviations over the samples")


def reach(breaks: dict[str, dict[str, Any]], formats: Iterable[str]) -> float:
    """How plausible the nearest state is in which a format breaks; inf where only zeros and constants do."""
    found = [plausibility(b) for f in formats for b in breaks.get(f, {}).values() if b["how"] not in DEGENERATE]
    return min(found, default=inf)


def judgements(trace: Trace, *forms: str, within: float, trapped: bool = False) -> Iterator[Judgement]:
    """The expressions of some forms that break, the worst of each line.

    Args:
        trace: with the confirmation's results.
        forms: names from `stabdiag.evidence.expressions.forms`; all when there are none.
        within: breaks within so many standard deviations of what was observed are errors.
        trapped: those whose value a where hides while the gradient is lost; else those it does not hide.
    """
    run = trace.run("float32")
    if run is None:
        return
    results = trace.experiments.confirmation.get("expressions", {})
    worst: dict[object, Judgement] = {}
    roots_of_quotients = {i for e in expressions(run) if e.form == QUOTIENT and _breaks(results, e) for i in e.upstream.ops}
    unshifted = {e.cause for e in expressions(run) if e.form == SOFTMAX_BY_HAND and _breaks(results, e)}
    for expression in expressions(run):
        result = results.get(expression.key)
        if result is None or (forms and expression.form not in forms):
            continue
        if (expression.selected is not None and hidden(result)) is not trapped:
            continue
        if expression.form == LOG_OF_SOFTMAX and expression.cause in unshifted:
            continue  # log(e / Σe): one finding, at the exp
        if expression.form == ROOT and expression.op in roots_of_quotients:
            continue  # x / sqrt(Σx²): told once, at the division
        severity = severity_of(run, expression, result, within)
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


def _badness(judgement: Judgement) -> tuple[int, float]:
    return (judgement.severity.rank, -judgement.reach)
