"""What rounding does to training: whether a step along the gradient of a precision still descends, and what hides in its noise.

A gradient with a relative error e descends to first order by at least 1 - e of what the exact one does, and an error that is
smaller than the noise between batches changes no training. So a precision is

- lost, when a step along its gradient lowers the reference loss by less than half of what the reference gradient lowers it by,
  both taken from the same weights at the same rate (`stabdiag.probe.experiments.descent`), or when nothing is left of it;
- noisy, when e exceeds the noise between samples of a batch, or the gradient itself where that noise is not known (Bottou,
  Curtis, Nocedal 2018, Optimization Methods for Large-Scale Machine Learning, section 4: what stochastic descent tolerates),
  and when more than half of what tells the outputs of samples apart is rounding;
- beside the point, when the reference gradient is no better: along it the loss falls by less than half of what its slope
  promises over one step of training. Networks with batch statistics over few elements are like that at the start. Rounding
  moves their weights about as far as a step does, and they train in 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf, isfinite, sqrt

from stabdiag.trace import Run, Trace
from stabdiag.trace.experiments import DescentTried

DESCENDS = 0.5
"""Share of the reference's descent that a precision needs, and of its own slope that the reference needs to be relied on."""
GONE = 0.01
"""Length of a gradient, relative to the reference's, below which no step along it does anything, however rough the loss is."""
DOUBT = 0.25
"""Gradient error from which noise is worth the measuring. In bfloat16 it is 0.003 to 0.11 for healthy networks without batch
statistics over few elements and 0.4 to 6 for those with them (`benchmarks/descent.py`). The exact gradient of those descends by
0.2 of its slope or less, so that all of them are rough."""
DROWNED = 0.5
"""Error of the outputs, relative to their spread between samples, from which most of it is rounding. In bfloat16 it is 0.004 to
0.1 for healthy networks without batch statistics over few elements, and 0.04 to 1.2 with them (`benchmarks/descent.py`)."""
TOLD = 0.1
"""Gradient error that is told beside a verdict of "safe": the first digit."""


class Outcome(Enum):
    """What the error of a gradient costs."""

    DESCENDS = "descends"
    NOISY = "noisy"
    LOST = "lost"
    ROUGH = "rough"


@dataclass(frozen=True)
class Descent:
    """How a precision descends.

    Attributes:
        outcome: see `Outcome`.
        error: of the gradient, relative to the reference's.
        share: of the reference's descent; None where it was not needed.
        sampling: noise between samples, relative to the reference gradient; None where it is not known.
        outputs: error of the outputs where it drowns what tells samples apart, else None.
    """

    outcome: Outcome
    error: float
    share: float | None = None
    sampling: float | None = None
    outputs: float | None = None

    @property
    def told(self) -> str:
        """The outcome in words, "" where there is nothing to tell."""
        if self.outcome is Outcome.LOST:
            share = 0.0 if self.share is None else max(0.0, self.share)
            return f"a step along its gradient lowers the loss by {share:.0%} of what the exact gradient does"
        if self.outcome is Outcome.NOISY and self.outputs is not None:
            return f"rounding changes the outputs by {_share(self.outputs)} of what tells samples apart"
        if self.error < TOLD:
            return ""
        noise = f"rounding changes the gradient by {_share(self.error)}"
        if self.outcome is Outcome.ROUGH:
            return f"{noise}, and so does one step of training"
        if self.outcome is Outcome.NOISY:
            return f"{noise}, {'more than its own size' if self.sampling is None else f'samples by {_share(self.sampling)}'}"
        return noise if self.sampling is None else f"{noise}, samples by {_share(self.sampling)}"


def _share(value: float) -> str:
    return f"{value:.0%}" if value < 10 else f"{value:,.3g} times"


def in_doubt(run: Run) -> bool:
    """Whether the gradient of a run is so far off that its descent must be tried."""
    return run.gradient_error is not None and DOUBT <= run.gradient_error < inf


def descent_of(trace: Trace, run: Run) -> Descent | None:
    """How a run descends; None where its gradient was not compared or is not finite."""
    error, projection = run.gradient_error, run.gradient_projection
    if error is None or projection is None or not isfinite(error):
        return None
    length = sqrt(max(0.0, error * error + 2 * projection - 1))  # of the gradient, in lengths of the reference's
    if length < GONE:
        return Descent(Outcome.LOST, error, projection)
    outputs = run.output_error if (run.output_error or 0.0) > DROWNED else None
    if error < DOUBT:
        return Descent(Outcome.DESCENDS if outputs is None else Outcome.NOISY, error, outputs=outputs)
    found = trace.experiments.descent
    if found is None or not relied_on(found):
        return Descent(Outcome.ROUGH, error)
    share, sampling = found.lowered.get(run.precision, projection * found.actual) / found.actual, found.sampling
    if share < DESCENDS:
        return Descent(Outcome.LOST, error, share, sampling)
    noisy = outputs is not None or error > (1.0 if sampling is None else sampling)
    return Descent(Outcome.NOISY if noisy else Outcome.DESCENDS, error, share, sampling, outputs)


def relied_on(found: DescentTried) -> bool:
    """Whether the loss falls along the reference gradient as its slope promises: only then a worse gradient can be told."""
    return found.actual >= DESCENDS * found.predicted > 0
