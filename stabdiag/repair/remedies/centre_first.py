"""Subtract the mean before squaring.

The squares are of the size of the spread then, and nothing cancels.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.pattern import Match
from stabdiag.repair.editing.rewrite import Rule, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD609", "SD503", "SD302", "SD501")
KEEPS_FUNCTION = True


def _centred(source: Source, match: Match) -> str:
    dim = "" if not match.rest else source.code(match.rest[0].value)
    mean = f"x.mean({dim}, keepdim=True)" if dim else "x.mean()"
    return f"(x - {mean}).square().mean(...)"


RULES: list[Rule] = [
    ("mean(square(x), ...) - square(mean(x, ...))", _centred),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite E[x²] - E[x]² as E[(x - E[x])²]."""
    return rewrite(source, finding.location, RULES)
