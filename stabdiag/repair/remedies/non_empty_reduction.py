"""Do not average over an empty set.

The mean of nothing is 0 / 0; the sum of nothing divided by at least 1 is 0.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD301",)
KEEPS_FUNCTION = True

RULES: list[Rule] = [
    ("sum(a, *any) / sum(m, ...)", "a.sum() / m.sum().clamp_min(1)"),
    ("a / sum(m, ...)", "a / m.sum(...).clamp_min(1)"),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Clamp the count that a sum is divided by."""
    return rewrite(source, finding.location, RULES)
