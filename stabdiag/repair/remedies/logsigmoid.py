"""Use logsigmoid instead of the logarithm of a sigmoid.

log σ(z) = -softplus(-z) and log(1 - σ(z)) = -softplus(z) have no limit; computed in two steps they are log(0) from a logit of
17 (float32) on. Where the model returns the sigmoid and the loss takes the logarithm, the model returns the logits instead.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, guarded, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD602", "SD505", "SD608", "SD301")
KEEPS_FUNCTION = True

RULES: list[Rule] = [
    *((f"log({p})", "F.logsigmoid(z)") for p in guarded("sigmoid(z)")),
    *((f"log({q})", "F.logsigmoid(-z)") for q in (*guarded("1 - sigmoid(z)"), "eps + 1 - sigmoid(z)", "1 + eps - sigmoid(z)")),
    *((f"log(1 - {p})", "F.logsigmoid(-z)") for p in guarded("sigmoid(z)")[2:]),
    ("log(1 / (1 + exp(-z)))", "F.logsigmoid(z)"),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite log σ(z) and log(1 - σ(z)), epsilons and clamps included."""
    return rewrite(source, finding.location, RULES)
