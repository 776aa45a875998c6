"""Cancel a logarithm against an exponential.

log(exp(x)) is x, without the range of exp in between.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, guarded, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD608", "SD605")
KEEPS_FUNCTION = True

RULES: list[Rule] = [
    *((f"log({e})", "x") for e in guarded("exp(x)")),
    *((f"exp(log({x}))", "x") for x in guarded("x")),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite log(exp(x)) and exp(log(x))."""
    return rewrite(source, finding.location, RULES)
