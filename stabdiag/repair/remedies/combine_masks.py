"""Combine boolean masks and fill once.

Two masks that leave every row a key may leave some row none together, and two fills with the smallest number of a dtype add up
to -inf. One fill with the combined mask can look at its rows.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD403", "SD301")
KEEPS_FUNCTION = True

RULES: list[Rule] = [
    (
        "masked_fill(masked_fill(x, a, c), b, c)",
        "x.masked_fill((a | b) & ~(a | b).all(-1, keepdim=True), c)",
    ),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Merge two fills, leaving rows that both together would empty."""
    return rewrite(source, finding.location, RULES)
