"""Evidence about the units (channels, features) of a layer: how it is sampled, counted, merged and bounded.

A claim about a unit stands on samples. Positions inside one sample (pixels, tokens) are correlated, so P of them count as
sqrt(P); the samples of a batch, further batches and time steps count in full. What was measured per call adds up over all
calls and batches of a site, so that a recurrent ReLU that is half asleep at each step is not called dead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any, Literal

from stabdiag.finding import Finding, Severity, Still
from stabdiag.trace import Op, Run, Trace

ONE_SIDED_95 = 1.6449  # standard normal quantile


def wilson_lower(successes: float, trials: float, z: float = ONE_SIDED_95) -> float:
    """Lower confidence bound of a proportion (Wilson 1927), one-sided 95 % unless another z is given; 0.0 without trials."""
    if trials <= 0:
        return 0.0
    p = successes / trials
    centre = p + z * z / (2 * trials)
    spread = z * sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return max(0.0, (centre - spread) / (1 + z * z / trials))


def rarely(trials: float, probability: float) -> float:
    """How sure it is that what was seen in none of the trials happens less often than with a probability: the posterior under a
    uniform prior, 1 - (1-p)^(n+1)."""
    silent: float = (1.0 - probability) ** (trials + 1)
    return 1.0 - silent


def probed(trace: Trace) -> list[str]:
    """The probed precisions without the float64 reference: what shows in float32 before any rounding shows in all of them."""
    return [name for name in trace.precisions if name != "float64"]


def one_per_line(findings: Iterable[Finding]) -> list[Finding]:
    """Findings whose edit is one and the same line become one: the worst of them, with the modules of the others in a note."""
    groups: dict[object, list[Finding]] = {}
    for finding in findings:
        at = finding.location
        groups.setdefault((at.path, at.line) if at is not None else (finding.module, finding.op), []).append(finding)
    first = []
    for group in groups.values():
        worst = max(group, key=lambda f: f.severity.rank)
        others = [f"`{f.op}` of `{f.module}`" for f in group if f is not worst]
        if others:
            worst.notes.append(
                f"evidence: so are {', '.join(others[:6])}" + (f" and {len(others) - 6} more" if len(others) > 6 else "")
            )
            worst.evidence["also"] = [f.module for f in group if f is not worst]
        worst.evidence["reaches"] = [f.evidence["op_index"] for f in group]
        worst.still = _any_still([f.still for f in group if f.still is not None])
        first.append(worst)
    return first


def _any_still(asked: list[Still]) -> Still | None:
    """How bad the worst of several findings is in another run: gone only where all are."""

    def still(run: Run) -> Severity | Literal[False] | None:
        answers = [ask(run) for ask in asked]
        there = [answer for answer in answers if answer]
        if there:
            return max(there, key=lambda severity: severity.rank)
        return None if None in answers else False

    return still if asked else None


def batch_size(run: Run) -> int:
    """How many samples are in one batch: the leading size that most floating-point or integer inputs share, at least 1."""
    sizes = [value.shape[0] for value in run.values if value.kind == "input" and value.shape]
    return max(1, max(sizes, key=sizes.count)) if sizes else 1


def effective_samples(rows: float, batch: int, calls: int = 1) -> float:
    """Rows of units (samples × positions, summed over `calls`) as independent samples: batch · sqrt(rows / batch) per call."""
    per_call = rows / max(1, calls)
    return per_call * calls if per_call <= batch else batch * sqrt(per_call / batch) * calls


@dataclass
class Site:
    """All calls of one place in the source in one run, with the facts of one measurement added up.

    Attributes:
        op: the first op there; calls: how many; facts: what was measured, summed.
    """

    op: Op
    calls: int
    facts: dict[str, Any]
    ops: list[Op]

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """What identifies the place in every run of the trace."""
        return self.op.site


def sites(run: Run, *measurements: str) -> dict[tuple[Any, ...], Site]:
    """The sites at which any of the measurements was taken, by `Op.site`, in order of execution."""
    found: dict[tuple[Any, ...], Site] = {}
    for op in run.ops:
        for name in measurements:
            fact = op.facts.get(name)
            if fact is None:
                continue
            site = found.get(op.site)
            if site is None:
                found[op.site] = Site(op, 1, dict(fact), [op])
            elif all(len(v) == len(site.facts[k]) for k, v in fact.items() if isinstance(v, list) and k in site.facts):
                site.calls += 1
                site.ops.append(op)
                for key, value in fact.items():
                    site.facts[key] = _plus(site.facts[key], value) if key in site.facts else value
    return found


def _plus(a: Any, b: Any) -> Any:
    return [x + y for x, y in zip(a, b, strict=True)] if isinstance(b, list) else a + b


def moments(sums: Sequence[float], squares: Sequence[float], rows: float) -> list[tuple[float, float]]:
    """(mean, standard deviation) of each unit from its sums over `rows` rows."""
    return [
        (total / rows, sqrt(max(0.0, square / rows - (total / rows) ** 2))) for total, square in zip(sums, squares, strict=True)
    ]
