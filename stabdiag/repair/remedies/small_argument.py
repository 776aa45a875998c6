"""Use the function made for small arguments.

1 + x and exp(x) lose every digit of an x below u; `log1p`, `expm1` and half-angle forms keep them.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD611", "SD503")
KEEPS_FUNCTION = True

RULES: list[Rule] = [
    ("log(1 + x)", "torch.log1p(x)"),
    ("log(1 - x)", "torch.log1p(-x)"),
    ("exp(x) - 1", "torch.expm1(x)"),
    ("1 - exp(x)", "-torch.expm1(x)"),
    ("1 - cos(x)", "2 * torch.sin(x / 2).square()"),
    ("cos(x) - 1", "-2 * torch.sin(x / 2).square()"),
    ("1 - sigmoid(z)", "torch.sigmoid(-z)"),
    ("sqrt(1 + x) - 1", "x / (torch.sqrt(1 + x) + 1)"),
    ("1 - sqrt(1 - x)", "x / (1 + torch.sqrt(1 - x))"),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite differences of 1 that small arguments cancel in."""
    return rewrite(source, finding.location, RULES)
