"""Use softmax instead of exponentials divided by their sum.

`softmax` subtracts the largest logit first; without that, one logit above 88.7 (11.1 in float16) makes NaN of its row.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, guarded, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD603", "SD302", "SD301", "SD605", "SD608")
KEEPS_FUNCTION = True

RULES: list[Rule] = [
    *((f"exp(z) / ({s})", "torch.softmax(z, dim=DIM)") for s in guarded("sum(exp(z), ...)")),
    ("exp(z) / unsqueeze(sum(exp(z), ...), *any)", "torch.softmax(z, dim=DIM)"),
    ("exp(z) / index(sum(exp(z), ...))", "torch.softmax(z, dim=DIM)"),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite exp(z) / sum(exp(z), d) as softmax(z, d)."""
    return rewrite(source, finding.location, RULES)
