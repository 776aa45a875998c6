"""Use leaky_relu where relu is called.

A unit that is off passes a hundredth of its gradient on, so that it can come back (Maas, Hannun & Ng 2013).
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite, rewrite_only
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD201", "SD103", "SD204")
KEEPS_FUNCTION = False

RULES: list[Rule] = [
    (pattern, "F.leaky_relu(x, 0.01)")
    for pattern in ("relu(x, *any)", "clamp(x, min=0)", "clamp(x, 0)", "clamp_min(x, 0)", "relu6(x)")
]


def edit(source: Source, finding: Finding) -> str | None:
    """Replace the function that the finding marks, or the only one of the file."""
    return rewrite(source, finding.location, RULES) or rewrite_only(source, RULES)
