"""Add the epsilon where the value is small.

1e-8 + 1 - p is 1 - p: next to 1 the epsilon is lost. (1 - p) clamped from below is not.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD505", "SD602")
KEEPS_FUNCTION = False

RULES: list[Rule] = [
    ("eps + 1 - p", "(1 - p).clamp_min(1e-6)"),
    ("1 + eps - p", "(1 - p).clamp_min(1e-6)"),
    ("1 - p + eps", "(1 - p).clamp_min(1e-6)"),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Clamp 1 - p instead of adding the epsilon to it."""
    return rewrite(source, finding.location, RULES)
