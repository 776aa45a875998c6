"""Stay inside the domain of an inverse function.

acos, asin and atanh have infinite slopes at ±1, and rounding puts a cosine beyond.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite, unless_guarded
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD606", "SD301")
KEEPS_FUNCTION = False

RULES: list[Rule] = [
    (f"{name}(x)", unless_guarded("x", f"torch.{name}(x.clamp(-1 + 1e-6, 1 - 1e-6))"))
    for name in ("acos", "arccos", "asin", "arcsin", "atanh", "arctanh")
]


def edit(source: Source, finding: Finding) -> str | None:
    """Clamp the operand just inside ±1."""
    return rewrite(source, finding.location, RULES)
