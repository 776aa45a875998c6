"""Pass the gradient straight through.

Rounding and sign have slope 0 everywhere; x + (round(x) - x).detach() has the value of one and the slope of the other.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.pattern import Match
from stabdiag.repair.editing.rewrite import Rule, is_inside, rewrite, when
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD103",)
KEEPS_FUNCTION = True


def _is_open(source: Source, match: Match) -> bool:
    return not is_inside(source, match.root, "detach")


RULES: list[Rule] = [
    *((f"{name}(x)", when(_is_open, f"x + (torch.{name}(x) - x).detach()")) for name in ("round", "sign", "floor", "ceil")),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite round, sign, floor and ceil."""
    return rewrite(source, finding.location, RULES)
