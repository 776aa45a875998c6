"""What ops with a limited domain were given: the ranges that a guard has to leave alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from stabdiag.trace import Stats, Trace, merged
from stabdiag.trace.counterpart import reference_of

_LIMITED = frozenset(
    [
        *("log", "log2", "log10", "log1p", "div", "reciprocal", "sqrt", "rsqrt", "pow", "linalg_vector_norm"),
        *("exp", "expm1", "acos", "asin", "atanh"),
    ]
)


@dataclass(slots=True)
class Operand:
    """One tensor that an op was given at one place, over all its runs there in the reference.

    Attributes:
        path, line, column: of the op; op: its aten name, without the "_" of in-place ops.
        position: among the op's tensors, from 0.
        low, high: extremes of the finite elements; inf and -inf where there are none.
        smallest: smallest non-zero magnitude, inf where there is none.
        magnitudes: floor(log2|x|) -> how many of the non-zero finite elements of a sample.
    """

    path: str
    line: int
    column: int | None
    op: str
    position: int
    low: float = inf
    high: float = -inf
    smallest: float = inf
    magnitudes: dict[int, int] = field(default_factory=dict)

    def smallest_above(self, bound: float) -> float:
        """The smallest magnitude above a bound, to a factor of 2; inf where there is none."""
        if self.smallest > bound:
            return self.smallest
        return min((2.0**e for e in self.magnitudes if 2.0**e > bound), default=inf)


def operands_of(trace: Trace) -> list[Operand]:
    """The operands of every op with a limited domain that a line of the user's runs, forward and loss."""
    run = reference_of(trace)
    found: dict[tuple[str, int, int | None, str, int], list[Stats | None]] = {}
    for op in run.phase("forward", "loss") if run is not None else ():
        name, at = op.name.rstrip("_"), op.location
        if name not in _LIMITED or at is None or run is None:
            continue
        for position, value_id in enumerate(op.inputs):
            value = run.values[value_id]
            stats = value.stats or run.values[run.behind_views(value_id)].stats
            found.setdefault((at.path, at.line, at.column, name, position), []).append(stats)
    return [_operand(*key, merged(stats)) for key, stats in found.items()]


def _operand(path: str, line: int, column: int | None, op: str, position: int, stats: Stats | None) -> Operand:
    if stats is None:
        return Operand(path, line, column, op, position)
    return Operand(path, line, column, op, position, stats.min, stats.max, stats.min_abs, dict(stats.histogram))
