"""The numbers that the rules of SD1, SD2, SD4 and SD7 compare with their thresholds, as functions of a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import log10

from stabdiag.evidence.graph.softmax import softmaxes
from stabdiag.evidence.numbers.loss_scale import scale_of_tensors
from stabdiag.evidence.signal.depth import most_precise, over_depth, over_time
from stabdiag.evidence.signal.path import signal_path
from stabdiag.evidence.signal.units import batch_size
from stabdiag.rules import sd104_gradient_underflow as underflow
from stabdiag.rules import sd201_dead_relu, sd202_saturated_activation, sd203_activation_drift, sd205_rank_collapse
from stabdiag.trace import Run, Trace
from stabdiag.trace.formats import FORMATS


@dataclass(frozen=True)
class Measure:
    """One number per site.

    Attributes:
        code, name: the rule, what is measured; threshold: from which on it speaks; larger: on which side.
        values: of a trace; decides: whether it is what the rule goes by, alone.
    """

    code: str
    name: str
    threshold: float
    larger: bool
    values: Callable[[Trace], Iterator[float]]
    decides: bool = True

    def worst(self, trace: Trace) -> float | None:
        """The most suspicious value; None where there is none."""
        found = list(self.values(trace)) if trace.base is not None else []
        return (max if self.larger else min)(found) if found else None

    def beyond(self, value: float) -> bool:
        """Whether a value is on the suspicious side."""
        return value > self.threshold if self.larger else value < self.threshold


def _base(of: Callable[[Run], Iterator[float]]) -> Callable[[Trace], Iterator[float]]:
    def values(trace: Trace) -> Iterator[float]:
        assert trace.base is not None
        return of(trace.base)

    return values


def _depth(sign: float, slope: bool) -> Callable[[Trace], Iterator[float]]:
    """Decades by which the gradient changes over depth, or per layer: sign 1 for growth towards the input, -1 for loss."""

    def values(trace: Trace) -> Iterator[float]:
        run = most_precise(trace)
        course = over_depth(run) if run is not None else None
        if course is not None and len(course.norms) >= 4:
            yield sign * (-course.slope if slope else course.decades)

    return values


def _both(sign: float, decades: float, slope: float) -> Callable[[Trace], Iterator[float]]:
    """The lesser of decades and decades per layer, each over its limit: what SD101 and SD102 go by."""

    def values(trace: Trace) -> Iterator[float]:
        for whole, each in zip(_depth(sign, slope=False)(trace), _depth(sign, slope=True)(trace), strict=True):
            yield min(whole / decades, each / slope)

    return values


def _time(trace: Trace) -> Iterator[float]:
    run = most_precise(trace)
    return (-course.slope for course in (over_time(run) if run is not None else ()))


def _lost_unscaled(trace: Trace) -> Iterator[float]:
    base = trace.base
    assert base is not None
    yield underflow._unscaled(trace, "float16", {p.name for p in underflow._trained(trace, base)})


def _lost_at_best_scale(trace: Trace) -> Iterator[float]:
    base, format = trace.base, FORMATS["float16"]
    assert base is not None
    yield underflow._share(underflow._trained(trace, base), format, scale_of_tensors(base, format))


def _dead(run: Run) -> Iterator[float]:
    """Lower bound of the share of dead units, net of those always on."""
    for e in sd201_dead_relu.collect(run, 0.05):
        if e.units >= 16:
            yield 1.0 if e.whole else e.bound


def _silent(run: Run) -> Iterator[float]:
    """What a count without evidence says: units that never fired."""
    return (e.silent / e.units for e in sd201_dead_relu.collect(run, 0.05))


def _saturated(run: Run) -> Iterator[float]:
    return (e.share for e in sd202_saturated_activation.collect(run, 2.0, 2.0**-22))


def _drift(run: Run) -> Iterator[float]:
    """Decades of variance, where the path is long enough and its second half goes on."""
    found = sd203_activation_drift.drift_of(signal_path(run))
    if found is not None and len(found.logs) >= 8:
        yield abs(found.decades) if found.slope and found.later / found.slope >= 0.5 else 0.0


def _distance_left(run: Run) -> Iterator[float]:
    """Decades that the nearest-neighbour distance of rows has fallen by, where it began above 0.05."""
    path = sd205_rank_collapse.ranks(run)
    if len(path) >= 4 and path[0][1]["nearest"] > 0.05:
        yield -log10(max(path[-1][1]["nearest"], 1e-12) / path[0][1]["nearest"])


def _entropy(run: Run) -> Iterator[float]:
    """Largest head entropy over its maximum, of each attention."""
    for softmax in softmaxes(run):
        heads = softmax.head_entropies(batch_size(run))
        if heads and softmax.scores is not None:
            yield max(heads)


def _logit(run: Run) -> Iterator[float]:
    for softmax in softmaxes(run):
        stats = run.values[run.behind_views(softmax.logits)].stats
        if stats is not None and softmax.scores is not None and not stats.nan:
            yield stats.max


def _one_hot(run: Run) -> Iterator[float]:
    return (softmax.site.facts["one_hot"] / softmax.rows for softmax in softmaxes(run) if softmax.rows >= 16)


def _twins(run: Run) -> Iterator[float]:
    facts = [p.facts["twins"] for p in run.parameters if "twins" in p.facts]
    return (fact["twins"] / fact["units"] for fact in facts if fact["units"] >= 4)


def _entries(run: Run) -> Iterator[dict[str, float]]:
    for op in run.phase("forward"):
        yield from (fact for name, fact in op.facts.items() if name.startswith("entry_") and fact["elements"])


def _input_ratio(run: Run) -> Iterator[float]:
    for fact in _entries(run):
        scales = [(s / fact["rows"]) ** 0.5 for s in fact["sum_sq"] if s > 0]  # type: ignore[attr-defined]
        yield max(scales) / min(scales) if scales else 1.0


def _input_mean_square(run: Run) -> Iterator[float]:
    return (fact["all_sum_sq"] / fact["elements"] for fact in _entries(run))


MEASURES = (
    Measure("SD101", "decades lost over depth", 3.5, True, _depth(-1.0, slope=False), False),
    Measure("SD101", "decades lost per layer", 0.12, True, _depth(-1.0, slope=True), False),
    Measure("SD101", "loss: lesser of both over its limit", 1.0, True, _both(-1.0, 3.5, 0.12)),
    Measure("SD102", "decades gained over depth", 3.0, True, _depth(1.0, slope=False), False),
    Measure("SD102", "decades gained per layer", 0.15, True, _depth(1.0, slope=True), False),
    Measure("SD102", "growth: lesser of both over its limit", 1.0, True, _both(1.0, 3.0, 0.15)),
    Measure("SD102", "decades per time step", 0.05, True, _time),
    Measure("SD104", "share lost unscaled", 0.2, True, _lost_unscaled),
    Measure("SD104", "share lost at the best scale", 0.05, True, _lost_at_best_scale),
    Measure("SD201", "dead share (bound)", 0.5, True, _base(_dead)),
    Measure("SD201", "silent share (a plain count)", 0.5, True, _base(_silent), False),
    Measure("SD202", "saturated share (bound)", 0.5, True, _base(_saturated)),
    Measure("SD203", "decades of variance", 6.0, True, _base(_drift)),
    Measure("SD205", "decades of distance lost", 4.0, True, _base(_distance_left)),
    Measure("SD402", "one-hot share", 0.5, True, _base(_one_hot)),
    Measure("SD404", "largest logit", 1e4, True, _base(_logit)),
    Measure("SD405", "head entropy", 0.05, False, _base(_entropy)),
    Measure("SD701", "share of units with a twin", 0.5, True, _base(_twins)),
    Measure("SD703", "ratio between features", 1000.0, True, _base(_input_ratio)),
    Measure("SD703", "mean square", 1000.0, True, _base(_input_mean_square)),
)
