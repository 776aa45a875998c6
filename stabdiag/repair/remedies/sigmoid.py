"""Use sigmoid instead of 1 / (1 + exp(-z)).

`sigmoid` needs no exponential of a large number; written out, its gradient is 0 · inf from 88.7 on.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD605", "SD302", "SD301", "SD608")
KEEPS_FUNCTION = True

RULES: list[Rule] = [
    ("1 / (1 + exp(-z))", "torch.sigmoid(z)"),
    ("1 / (1 + exp(z))", "torch.sigmoid(-z)"),
    ("exp(z) / (1 + exp(z))", "torch.sigmoid(z)"),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite the sigmoid."""
    return rewrite(source, finding.location, RULES)
