"""Use log_softmax instead of the logarithm of a softmax.

`log_softmax` subtracts the largest logit first, so it neither underflows to log(0) nor loses the gradient. Where the model
returns the softmax and the loss takes the logarithm, the model returns the logits instead.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, guarded, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD601", "SD401", "SD505", "SD608", "SD301", "SD304")
KEEPS_FUNCTION = True

RULES: list[Rule] = [
    *((f"log({p})", "F.log_softmax(z, ...)") for p in guarded("softmax(z, ...)")),
    ("log(exp(z) / sum(exp(z), ...))", "F.log_softmax(z, dim=DIM)"),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite log(softmax(z, d)) in all its spellings as log_softmax(z, d)."""
    return rewrite(source, finding.location, RULES)
