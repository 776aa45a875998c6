"""Scale one factor before the product.

(q · s) @ kᵀ is (q @ kᵀ) · s; scaled first, nothing larger than the result is ever stored. For 1/√d the factor is often a power
of two, and then the result is the same to the last bit.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD610", "SD302", "SD303")
KEEPS_FUNCTION = True

RULES: list[Rule] = [
    ("a @ b * s", "(a * s) @ b"),
    ("a @ b / s", "(a / s) @ b"),
    ("einsum(e, a, b) * s", "torch.einsum(e, a * s, b)"),
    ("einsum(e, a, b) / s", "torch.einsum(e, a / s, b)"),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Move the factor behind a matrix product to its first operand."""
    return rewrite(source, finding.location, RULES)
