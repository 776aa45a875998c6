"""Use logaddexp for the logarithm of a sum of two exponentials.

`logaddexp` takes the larger exponent out of the sum, so neither exponential overflows.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD604", "SD605", "SD603")
KEEPS_FUNCTION = True

RULES: list[Rule] = [
    ("log(1 + exp(z))", "torch.logaddexp(torch.zeros_like(z), z)"),
    ("log(exp(a) + exp(b))", "torch.logaddexp(a, b)"),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite log(exp(a) + exp(b))."""
    return rewrite(source, finding.location, RULES)
