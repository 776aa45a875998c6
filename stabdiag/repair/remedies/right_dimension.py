"""Normalise over the other dimension.

A softmax over a dimension of size 1 is 1 whatever it is given.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.pattern import Match, dimension
from stabdiag.repair.editing.rewrite import Rule, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD612",)
KEEPS_FUNCTION = False


def _other(source: Source, match: Match) -> str:
    return "torch.softmax(z, dim=1)" if dimension(source, match) != "1" else "torch.softmax(z, dim=-1)"


RULES: list[Rule] = [("softmax(z, ...)", _other)]


def edit(source: Source, finding: Finding) -> str | None:
    """Exchange the first and the last dimension behind the batch."""
    return rewrite(source, finding.location, RULES)
