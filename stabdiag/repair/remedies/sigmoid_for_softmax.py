"""Use a sigmoid where a softmax has a single logit.

A softmax over one element is 1 whatever it is given, and its gradient is 0.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD612",)
KEEPS_FUNCTION = False

RULES: list[Rule] = [("softmax(z, ...)", "torch.sigmoid(z)")]


def edit(source: Source, finding: Finding) -> str | None:
    """Replace the softmax."""
    return rewrite(source, finding.location, RULES)
