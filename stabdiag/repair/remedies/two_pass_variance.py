"""Let torch compute the variance.

E[x²] - E[x]² cancels every digit when the mean is large against the spread; `var` subtracts the mean first.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD609", "SD503", "SD302", "SD501")
KEEPS_FUNCTION = True

RULES: list[Rule] = [
    ("mean(square(x), ...) - square(mean(x, ...))", "x.var(..., correction=0)"),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite E[x²] - E[x]² as var(x)."""
    return rewrite(source, finding.location, RULES)
