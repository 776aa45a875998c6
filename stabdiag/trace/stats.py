"""The distribution of a tensor in plain numbers, and how distributions add."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import floor, inf, log2, sqrt

from stabdiag.trace.formats import Format


@dataclass(slots=True)
class Stats:
    """The distribution of one tensor, or of several merged by addition (batches, calls, ranks).

    Counts and extremes are exact. `sum`, `sum_sq` and `histogram` are over `sampled` elements at fixed positions (all of
    them when `sampled == count`). Nothing is computed in the tensor's own low precision.

    Attributes:
        count: elements.
        nan, posinf, neginf, zeros: exact counts.
        min, max: of the finite elements; +inf and -inf when there are none.
        max_abs: largest finite magnitude, 0.0 when there is none.
        min_abs: smallest non-zero finite magnitude among the sample, inf when there is none.
        sampled: finite elements that went into sum, sum_sq and histogram (zeros included).
        sum, sum_sq: over the sample, in float64.
        histogram: floor(log2|x|) -> how many sampled finite non-zero elements.
    """

    count: int = 0
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    zeros: int = 0
    min: float = inf
    max: float = -inf
    max_abs: float = 0.0
    min_abs: float = inf
    sampled: int = 0
    sum: float = 0.0
    sum_sq: float = 0.0
    histogram: dict[int, int] = field(default_factory=dict)

    @property
    def nonfinite(self) -> int:
        """How many elements are NaN or infinite."""
        return self.nan + self.posinf + self.neginf

    @property
    def rms(self) -> float:
        """Root mean square of the finite elements; NaN when nothing was sampled."""
        return sqrt(self.sum_sq / self.sampled) if self.sampled else float("nan")

    @property
    def mean(self) -> float:
        """Mean of the finite elements; NaN when nothing was sampled."""
        return self.sum / self.sampled if self.sampled else float("nan")

    @property
    def std(self) -> float:
        """Standard deviation of the finite elements; NaN when nothing was sampled."""
        return sqrt(max(0.0, self.sum_sq / self.sampled - self.mean**2)) if self.sampled else float("nan")

    @property
    def norm(self) -> float:
        """L2 norm over all elements, estimated from the sample's root mean square; at least the largest element, which a sample
        may miss (the gradient of logits over a large vocabulary lies in one element per row)."""
        return max(self.rms * sqrt(self.count - self.nonfinite), self.max_abs) if self.sampled else float("nan")

    def headroom(self, format: Format) -> float:
        """Bits between the largest magnitude and the format's largest value; negative when it overflows, inf for zeros."""
        return log2(format.max / self.max_abs) if self.max_abs > 0 else inf

    def below(self, magnitude: float) -> float:
        """Share of the non-zero sampled elements with |x| < magnitude (a power of two), NaN when there are none."""
        total = sum(self.histogram.values())
        if not total:
            return float("nan")
        exponent = log2(magnitude)
        return sum(n for e, n in self.histogram.items() if e < exponent) / total

    def energy_below(self, magnitude: float) -> float:
        """Share of the sum of squares that elements with |x| < magnitude (a power of two) hold, NaN when all are zero."""
        each = (self.count - self.nonfinite) / self.sampled if self.sampled else 0.0
        energies = {e: each * n * 4.0 ** min(max(e, -500), 500) for e, n in self.histogram.items()}
        if self.max_abs > 0:  # the sample may have missed it, and with it nearly all there is
            largest = floor(log2(self.max_abs))
            energies.setdefault(largest, 4.0 ** min(max(largest, -500), 500))
        total = sum(energies.values())
        return sum(x for e, x in energies.items() if e < log2(magnitude)) / total if total else float("nan")

    def underflow(self, format: Format, scale: float = 1.0) -> float:
        """Share of the non-zero elements that round to 0 in the format after multiplication by `scale` (a power of two)."""
        return self.below(format.smallest / 2 / scale)

    def subnormal(self, format: Format, scale: float = 1.0) -> float:
        """Share of the non-zero elements below the format's normal range after multiplication by `scale`."""
        return self.below(format.tiny / scale)

    def scaled(self, factor: float) -> Stats:
        """The statistics of the same tensor multiplied by a positive power of two."""
        shift = round(log2(factor))
        if shift == 0:
            return self
        return replace(
            self,
            min=self.min * factor,
            max=self.max * factor,
            max_abs=self.max_abs * factor,
            min_abs=self.min_abs * factor,
            sum=self.sum * factor,
            sum_sq=self.sum_sq * factor**2,
            histogram={exponent + shift: count for exponent, count in self.histogram.items()},
        )

    def __add__(self, other: Stats) -> Stats:
        histogram = dict(self.histogram)
        for exponent, count in other.histogram.items():
            histogram[exponent] = histogram.get(exponent, 0) + count
        return Stats(
            self.count + other.count,
            self.nan + other.nan,
            self.posinf + other.posinf,
            self.neginf + other.neginf,
            self.zeros + other.zeros,
            min(self.min, other.min),
            max(self.max, other.max),
            max(self.max_abs, other.max_abs),
            min(self.min_abs, other.min_abs),
            self.sampled + other.sampled,
            self.sum + other.sum,
            self.sum_sq + other.sum_sq,
            histogram,
        )


def merged(stats: Iterable[Stats | None]) -> Stats | None:
    """The sum of the statistics that are there; None when none is (missing is not zero)."""
    total: Stats | None = None
    for one in stats:
        if one is not None:
            total = one if total is None else total + one
    return total
