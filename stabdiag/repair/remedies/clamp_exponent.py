"""Bound the exponent, not its exponential.

exp overflows at 88.7, in float16 at 11.09; a clamp behind it comes too late, and its gradient is 0 · inf.
"""

from __future__ import annotations

from math import log

from stabdiag.finding import Finding
from stabdiag.repair.editing.pattern import Match, constant
from stabdiag.repair.editing.rewrite import Rule, rewrite, unless_guarded
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD605", "SD301", "SD302", "SD608")
KEEPS_FUNCTION = True


def _before(source: Source, match: Match) -> str | None:
    largest = constant(source, match.bound["c"])
    return f"torch.exp(z.clamp(max={log(largest):.4g}))" if largest is not None and largest > 0 else None


RULES: list[Rule] = [
    ("clamp(exp(z), max=c)", _before),
    ("clamp_max(exp(z), c)", _before),
    ("clamp(exp(z), eps, c)", _before),
    ("exp(z)", unless_guarded("z", "torch.exp(z.clamp(max=10.0))")),
    ("expm1(z)", unless_guarded("z", "torch.expm1(z.clamp(max=10.0))")),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Clamp what exp is taken of."""
    return rewrite(source, finding.location, RULES)
