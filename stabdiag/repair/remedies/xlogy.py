"""Use xlogy for x · log x, which is 0 at 0.

0 · log(0) is NaN; `xlogy` gives the limit.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, guarded, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD608", "SD301")
KEEPS_FUNCTION = True

RULES: list[Rule] = [*((f"y * log({x})", "torch.xlogy(y, x)") for x in reversed(guarded("x")))]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite the product with a logarithm."""
    return rewrite(source, finding.location, RULES)
