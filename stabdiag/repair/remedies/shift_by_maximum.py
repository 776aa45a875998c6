"""Subtract the maximum before the exponential.

What is divided by its own sum afterwards does not change, and no exponent is above 0.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.pattern import Match
from stabdiag.repair.editing.rewrite import Rule, rewrite, when
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import head

REPAIRS = ("SD603",)
KEEPS_FUNCTION = True


def _unshifted(source: Source, match: Match) -> bool:
    made = head(source, match.bound["z"])
    return made is None or made.op != "sub"


RULES: list[Rule] = [
    ("exp(z)", when(_unshifted, "torch.exp(z - z.amax(dim=-1, keepdim=True))")),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Shift the exponent by its largest value in the last dimension."""
    return rewrite(source, finding.location, RULES)
