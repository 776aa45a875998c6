"""Where the numbers of the sampled steps are heading: robust lines, and the step at which a limit is met.

Theil-Sen (Sen 1968, doi:10.1080/01621459.1968.10480934): the median of the slopes of all pairs of points, with the interval
that Kendall's statistic gives; a quarter of the points may be anything. Twenty lines of our own stand here for
`scipy.stats.theilslopes`, which would make every installation 100 MB larger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import isfinite, log2, log10, sqrt
from statistics import median

from stabdiag.finding import Finding, Severity
from stabdiag.rule import matching
from stabdiag.trace import Location, Run
from stabdiag.trace.formats import FORMATS, format_of

LEAST = 8  # points
NORMAL_95 = 1.96  # standard normal quantile, two-sided
AHEAD = 10.0  # times the observed span: how far a line is trusted


@dataclass(frozen=True)
class Line:
    """A robust line y = intercept + slope·x, with the 95 % interval of its slope."""

    slope: float
    low: float
    high: float
    intercept: float


def theil_sen(x: Sequence[float], y: Sequence[float]) -> Line | None:
    """The line through points; None for fewer than `LEAST`, or when all x are equal."""
    n = len(x)
    slopes = sorted((y[j] - y[i]) / (x[j] - x[i]) for i, j in combinations(range(n), 2) if x[j] != x[i])
    if n < LEAST or not slopes:
        return None
    slope = median(slopes)
    spread = NORMAL_95 * sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(0, round((len(slopes) - spread) / 2) - 1)
    high = min(len(slopes) - 1, round((len(slopes) + spread) / 2))
    return Line(slope, slopes[low], slopes[high], median(y) - slope * median(x))


@dataclass(frozen=True)
class Measure:
    """A quantity that is followed.

    Attributes:
        rule: the name of the rule whose limit it is; unit: of the quantity, as it is plotted; limit: where the rule ends;
        falls: whether it is met from above.
    """

    rule: str
    unit: str
    limit: float
    falls: bool
    ends: str


MEASURES = {
    "headroom": Measure("low-headroom", "bits", 0.0, True, "{format} ends"),
    "attention logits": Measure("attention-logit-growth", "decades", 4.0, False, "attention logits reach 10,000"),
    "attention entropy": Measure("attention-entropy-collapse", "of the largest entropy", 0.01, True, "its entropy is gone"),
    "dead units": Measure("dead-relu", "of the units", 0.5, False, "half of the units are dead"),
    "saturated": Measure("saturated-activation", "of the elements", 0.5, False, "half of the elements are saturated"),
    "update ratio": Measure("update-ratio", "decades", -1.0, False, "an update is a tenth of the weight"),
    "loss scale": Measure("loss-scale-collapse", "bits", 0.0, True, "the loss scale is 1"),
}
"""What is followed, by name."""

Point = tuple[str, str]
"""A measure, and of what: a module or an op in it."""


def measured(run: Run) -> dict[Point, float]:
    """The quantities of one recorded step; those that do not apply are absent."""
    found: dict[Point, float] = {}
    for op in run.phase("forward", "loss"):
        value = run.output_of(op)
        where = op.module or op.layer or op.name
        if value is not None and value.stats is not None and value.stats.max_abs > 0 and value.dtype in FORMATS:
            bits = value.stats.headroom(format_of(value.dtype))
            found["headroom", where] = min(bits, found.get(("headroom", where), bits))
        for facts in op.facts.values():
            rows = facts.get("head_rows")
            if rows and sum(rows):
                found["attention entropy", where] = sum(facts["head_entropy"]) / sum(rows)
                logits = run.values[run.behind_views(op.inputs[0])].stats
                if logits is not None and logits.max > 0:
                    found["attention logits", where] = log10(logits.max)
            if facts.get("flat") and facts.get("sampled"):
                found["saturated", where] = sum(facts["flat"]) / (len(facts["flat"]) * facts["sampled"])
            if facts.get("fired"):
                found["dead units", where] = 1.0 - sum(n > 0 for n in facts["fired"]) / len(facts["fired"])
    return {point: value for point, value in found.items() if isfinite(value)}


@dataclass
class Trends:
    """Points of all sampled steps."""

    points: dict[Point, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, step: int, values: dict[Point, float]) -> None:
        """Add what one step measured."""
        for point, value in values.items():
            self.points.setdefault(point, []).append((step, value))

    def forecasts(self, precision: str, places: dict[str, Location | None]) -> Iterator[Finding]:
        """One finding per measure that meets its limit, at the place where it does so first."""
        soonest: dict[str, tuple[float, Finding]] = {}
        for (name, where), points in self.points.items():
            found = _forecast(MEASURES[name], where, points, precision, places.get(where))
            if found is not None and (name not in soonest or found[0] < soonest[name][0]):
                soonest[name] = found
        yield from (finding for _, finding in soonest.values())


def _forecast(
    measure: Measure, where: str, points: list[tuple[int, float]], precision: str, place: Location | None
) -> tuple[float, Finding] | None:
    x, y = [float(step) for step, _ in points], [value for _, value in points]
    line = theil_sen(x, y)
    if line is None or (line.high >= 0 if measure.falls else line.low <= 0):
        return None
    now, last, span = line.intercept + line.slope * x[-1], x[-1], x[-1] - x[0]
    left = measure.limit - now
    if (left >= 0) == measure.falls:
        return None  # beyond it already: the rule itself speaks
    first, latest = sorted((last + left / line.low, last + left / line.high))
    if last + left / line.slope - last > AHEAD * span:
        return None
    per = abs(line.slope) * 1000
    verb = "loses" if measure.falls else "gains"
    narrow = format_of(precision).name
    message = (
        f"`{where or 'the model'}` {verb} {per:.2g} {measure.unit} per 1,000 steps: {measure.ends.format(format=narrow)} "
        f"between step {_rounded(first):,} and {_rounded(latest):,}"
    )
    (rule,) = matching(measure.rule)
    finding = rule.finding(
        Severity.WARNING,
        message,
        module=where,
        precisions=[precision],
        location=place,
        label="heading there",
        notes=[
            f"evidence: {len(points)} sampled steps, 95 % interval of the slope {line.low * 1000:.2g} to {line.high * 1000:.2g}"
        ],
        evidence={
            "slope": line.slope,
            "low": line.low,
            "high": line.high,
            "points": len(points),
            "first": first,
            "last": latest,
        },
    )
    finding.blocks = []
    return last + left / line.slope, finding


def _rounded(step: float) -> int:
    """Two significant digits: more would claim what the data do not give."""
    if step < 100:
        return round(step)
    unit = 10 ** (len(str(int(step))) - 2)
    return int(round(step / unit) * unit)


def scale_bits(scale: float) -> float:
    """A loss scale in bits above 1."""
    return log2(scale) if scale > 0 else float("-inf")
