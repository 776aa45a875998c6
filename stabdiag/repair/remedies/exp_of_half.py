"""Halve the exponent instead of taking the root.

sqrt(exp(v)) has an infinite slope where exp(v) is 0 and overflows twice as early as exp(v / 2).
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, guarded, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD606", "SD605")
KEEPS_FUNCTION = True

RULES: list[Rule] = [
    *((f"sqrt({e})", "torch.exp(0.5 * v)") for e in guarded("exp(v)")),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite sqrt(exp(v))."""
    return rewrite(source, finding.location, RULES)
