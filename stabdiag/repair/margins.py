"""The constant of a guard: from the data and the formats, not from habit.

It lies at least MARGIN times below the smallest value that the operand had in the reference run, so that no healthy value is
touched, and above what every format of the finding can hold together with its reciprocal. Where no number is both, there is no
guard: a stable form is needed, or nothing helps.
"""

from __future__ import annotations

from math import ceil, floor, inf, log10

from stabdiag.judging.operands import Operand
from stabdiag.repair.remedy import Case
from stabdiag.trace.formats import FORMATS, Format, format_of

MARGIN = 1e3
"""Least distance between a guard and the smallest healthy value: training may shrink that by as much before it is felt."""
FAR = 1e6
"""Distance that is kept where the formats leave room: a millionth is below what float32 resolves beside the value."""
USUAL = 1e-6
"""No guard is larger: for operands of any size this is small."""
LOGARITHMS = ("log", "log2", "log10")
ROOTS = ("sqrt", "rsqrt", "pow", "linalg_vector_norm")
DIVISIONS = ("div", "reciprocal")


def operands_at(case: Case, ops: tuple[str, ...], position: int | None = None) -> list[Operand]:
    """What some ops on the line of the finding were given.

    Args:
        position: among the op's tensors; None for the first, -1 for the last.
    """
    at = case.finding.location
    found = [o for o in case.report.operands if at is not None and (o.path, o.line) == (at.path, at.line) and o.op in ops]
    here = [o for o in found if at is not None and at.column is not None and o.column == at.column]
    chosen = here if here and any(o.op == case.finding.op.rstrip("_") for o in here) else found
    wanted = {o.op: max(p.position for p in chosen if p.op == o.op) if position == -1 else position or 0 for o in chosen}
    return [o for o in chosen if o.position == wanted[o.op]]


def formats_of(case: Case) -> list[Format]:
    """The formats that a guard must work in: those that the finding shows in."""
    names = {name.removeprefix("amp-") for name in case.finding.precisions} & set(FORMATS)
    return [format_of(name) for name in sorted(names or {"float32"})]


def least(format: Format) -> float:
    """The smallest guard that a format holds: a normal number whose reciprocal is a quarter of the largest one at most."""
    return max(format.tiny, 4.0 / format.max)


def guard(healthy: float, formats: list[Format]) -> float | None:
    """The constant for an operand, a power of ten; None where none is below the data and above what the formats lose.

    Args:
        healthy: smallest non-zero magnitude of the operand where nothing is wrong; inf where it is 0 throughout, so that
            nothing says how large a healthy value is.
        formats: in which the guard must work.
    """
    lowest = 10.0 ** ceil(log10(max(least(f) for f in formats)) - 1e-9)
    wanted = min(USUAL, healthy / FAR)
    chosen = max(lowest, 10.0 ** floor(log10(wanted) + 1e-9)) if wanted > 0 else lowest
    return chosen if chosen * MARGIN <= healthy < inf else None


def guard_at(case: Case, ops: tuple[str, ...], position: int) -> tuple[float, float] | None:
    """(guard, smallest healthy value) for the operands of some ops at the finding; None without one, or for signed operands."""
    found = operands_at(case, ops, position)
    if not found or any(o.low < 0 and o.op in DIVISIONS for o in found):
        return None
    healthy = min(o.smallest for o in found)
    constant = guard(healthy, formats_of(case))
    return None if constant is None else (constant, healthy)


def as_code(value: float) -> str:
    """A power of ten as authors write it: `1e-6`."""
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
