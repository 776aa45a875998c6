"""Ops that multiply the gradient by more than float32 has digits, near their singular point."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stabdiag.trace import Op, Run
from stabdiag.trace.dependence import dependence
from stabdiag.trace.formats import format_of
from stabdiag.trace.ops import RECIPROCALS, limits


@dataclass(frozen=True)
class Amplified:
    """One op whose gradient grows out of all proportion.

    Attributes:
        op: in the run; factor: largest gradient of the layers' outputs that it is computed from, over that of what it makes.
        smallest: the smallest magnitude of its operand, the divisor of a quotient; None unknown.
    """

    op: Op
    factor: float
    smallest: float | None


def amplified(run: Run) -> Iterator[Amplified]:
    """The worst op of each line that divides by, or takes a root or logarithm of, a value so near 0 that the gradient grows by
    more than 1/u of the format: beside the elements it grows in, what all others say is lost in rounding."""
    worst: dict[object, Amplified] = {}
    enough = 1 / format_of(run.precision).unit_roundoff
    for op in run.phase("forward", "loss"):
        made = run.output_of(op)
        singular = any(end.at == 0 for end in limits(op.name, op.attributes, format_of(run.precision)))
        quotient = len(op.inputs) == 2 or op.name in RECIPROCALS or op.name != "div"
        if made is None or made.gradient is None or not (singular and quotient) or made.gradient.nonfinite:
            continue
        least = enough * made.gradient.max_abs
        if not least > 0 or _largest(run, op.inputs) < least:
            continue
        slices = [dependence(run).slice(i) for i in op.inputs]
        reached = _largest(run, (i for s in slices for i in s.sources))  # 1/p before p = exp(z) is no more than 1 in z
        if reached < least:
            continue
        stats = run.values[run.behind_views(op.inputs[-1])].stats
        smallest = None if stats is None else 0.0 if stats.zeros else stats.min_abs
        found = Amplified(op, reached / made.gradient.max_abs, smallest)
        at = op.location
        key = (at.path, at.line) if at is not None else op.index
        if key not in worst or found.factor > worst[key].factor:
            worst[key] = found
    yield from worst.values()


def _largest(run: Run, values: Iterable[int]) -> float:
    gradients = (run.values[i].gradient for i in values)
    return max((g.max_abs for g in gradients if g is not None and not g.nonfinite), default=0.0)
