"""Keep the divisor away from 0.

A divisor that is never negative is clamped at 1e-4, which float16 holds with its reciprocal.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite, unless_guarded
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD608", "SD301", "SD505")
KEEPS_FUNCTION = False

RULES: list[Rule] = [
    ("a / b", unless_guarded("b", "a / b.clamp_min(1e-4)")),
    ("reciprocal(b)", unless_guarded("b", "1 / b.clamp_min(1e-4)")),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Clamp what is divided by."""
    return rewrite(source, finding.location, RULES)
