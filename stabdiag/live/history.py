"""The last steps in numbers, and what is out of the ordinary among them.

The ordinary is the median of the last 200 steps and their median absolute deviation: neither moves with a single outlier
(Leys et al. 2013, doi:10.1016/j.jesp.2013.03.013). Healthy trainings stay below 8 deviations: see `benchmarks/watching.py`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import isfinite
from statistics import median

WINDOW = 200
DEVIATIONS = 8.0
LEAST = 30  # steps: a median of fewer says little about what comes
FLOOR = 0.01  # a deviation below this share of the median counts as so much: a loss that stands still may move by rounding
FIRST = 8  # steps whose updates are all taken for unusual, because nothing is known yet


@dataclass(frozen=True, slots=True)
class Step:
    """One step: number from 0, loss (unscaled; None where it was not seen), gradient norm, rate, loss scale."""

    number: int
    loss: float | None
    gradient_norm: float | None
    rate: float
    scale: float = 1.0
    skipped: bool = False


class History:
    """The last 200 steps."""

    def __init__(self) -> None:
        self.steps: deque[Step] = deque(maxlen=WINDOW)

    def add(self, step: Step) -> None:
        """Remember a step that went well, or was skipped by the scaler."""
        self.steps.append(step)

    def loss_limit(self) -> float | None:
        """The loss above which a step is a spike; None before `LEAST` steps."""
        return limit([s.loss for s in self.steps if s.loss is not None])

    def gradient_limit(self) -> float | None:
        """Likewise of the gradient norm."""
        return limit([s.gradient_norm for s in self.steps if s.gradient_norm is not None])

    def unusual_update(self, rate: float, gradient_norm: float) -> bool:
        """Whether the coming update may be larger than those before: then the weights are worth keeping for a moment."""
        taken = [s for s in self.steps if not s.skipped and s.gradient_norm is not None]
        if len(taken) < FIRST:
            return True
        usual = limit([s.rate * s.gradient_norm for s in taken if s.gradient_norm is not None], least=FIRST)
        return rate > 3 * taken[-1].rate or (usual is not None and rate * gradient_norm > usual)

    def usual_rate(self) -> float | None:
        """The median rate."""
        return median(s.rate for s in self.steps) if self.steps else None

    def collapsed(self, skipped: float = 0.25) -> bool:
        """Whether a scaler does what SD803 calls a collapse: it fell below 1, or skips more than a quarter of the steps after
        the first accepted one (of at least `LEAST`)."""
        if not self.steps or not self.steps[-1].skipped:
            return False
        after = list(self.steps)
        first = next((k for k, s in enumerate(after) if not s.skipped), None)
        if self.steps[-1].scale < 1.0:
            return True
        after = after[first:] if first is not None else []
        return len(after) >= LEAST and sum(s.skipped for s in after) > skipped * len(after)


def limit(values: list[float], least: int = LEAST) -> float | None:
    """median + 8 · MAD of the finite values; None when there are too few."""
    finite = [value for value in values if isfinite(value)]
    if len(finite) < least:
        return None
    middle = median(finite)
    deviation = median(abs(value - middle) for value in finite)
    return middle + DEVIATIONS * max(deviation, FLOOR * abs(middle))
