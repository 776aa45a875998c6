"""Put the epsilon inside the root.

The slope of the root is infinite at 0; with 1e-6 under it, it is 500 at most. An epsilon added to the root bounds nothing.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, is_open_power, rewrite, unless_guarded, when
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD606", "SD301")
KEEPS_FUNCTION = False

RULES: list[Rule] = [
    ("sqrt(x) + eps", unless_guarded("x", "torch.sqrt(x + 1e-6)")),
    ("sqrt(x)", unless_guarded("x", "torch.sqrt(x + 1e-6)")),
    ("rsqrt(x)", unless_guarded("x", "torch.rsqrt(x + 1e-6)")),
    ("pow(x, c)", when(is_open_power, "(x + 1e-6) ** c")),
    ("norm(x, dim=d, keepdim=True)", "torch.sqrt(x.square().sum(d, keepdim=True) + 1e-6)"),
    ("norm(x, dim=d)", "torch.sqrt(x.square().sum(d) + 1e-6)"),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Add it under the root that the finding marks, or write the norm out."""
    return rewrite(source, finding.location, RULES)
