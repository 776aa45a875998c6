"""Give the loss logits instead of probabilities.

`cross_entropy` is `nll_loss` of `log_softmax` in one step; the model returns logits, the loss stays what it was.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, guarded, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD601", "SD401")
KEEPS_FUNCTION = True

RULES: list[Rule] = [
    *((f"nll_loss(log({p}), t)", "F.cross_entropy(z, t)") for p in guarded("softmax(z, ...)")),
    ("nll_loss(log_softmax(z, ...), t)", "F.cross_entropy(z, t)"),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite the negative log-likelihood of a softmax as cross-entropy of the logits."""
    return rewrite(source, finding.location, RULES)
