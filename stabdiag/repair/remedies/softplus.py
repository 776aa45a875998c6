"""Use softplus instead of log(1 + exp(z)).

`softplus` is z for large z; log(1 + exp(z)) is infinite from 88.7 (11.1 in float16) on.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD604", "SD605", "SD302", "SD301", "SD611")
KEEPS_FUNCTION = True

RULES: list[Rule] = [
    ("log(1 + exp(z))", "F.softplus(z)"),
    ("log1p(exp(z))", "F.softplus(z)"),
    ("log(cosh(z))", "torch.abs(z) + F.softplus(-2 * torch.abs(z)) - 0.6931471805599453"),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite the softplus, and log(cosh(z)) by it."""
    return rewrite(source, finding.location, RULES)
