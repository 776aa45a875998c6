"""Cap the attention logits smoothly.

30 · tanh(s / 30) leaves small scores as they are and lets none pass 30, so that the softmax keeps a gradient.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.pattern import Match
from stabdiag.repair.editing.rewrite import Rule, is_inside, rewrite, when
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD404", "SD402", "SD302")
KEEPS_FUNCTION = False


def _is_open(source: Source, match: Match) -> bool:
    return not is_inside(source, match.root, "tanh")


RULES: list[Rule] = [
    ("q @ k * s", when(_is_open, "30 * torch.tanh(q @ k * s / 30)")),
    ("q @ k / s", when(_is_open, "30 * torch.tanh(q @ k / s / 30)")),
    ("softmax(q @ k, ...)", "torch.softmax(30 * torch.tanh(q @ k / 30), ...)"),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Cap scaled scores, in front of any mask."""
    return rewrite(source, finding.location, RULES)
