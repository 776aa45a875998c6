"""Use binary cross-entropy with logits.

The sigmoid and the logarithm cancel on paper: -log σ(z) = softplus(-z), which has no limit, where log(1 - σ(z)) is log(0) from
a logit of 17 on. The model returns logits then.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, guarded, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD602", "SD505", "SD608", "SD301")
KEEPS_FUNCTION = True

_EACH = 'F.binary_cross_entropy_with_logits(z, y, reduction="none")'
_P, _Q = guarded("sigmoid(z)"), guarded("1 - sigmoid(z)")
_PAIRS = [*zip(_P, _Q, strict=True), (_P[1], "eps + 1 - sigmoid(z)"), (_P[1], "1 + eps - sigmoid(z)")]
_PAIRS += [(p, f"1 - {p}") for p in _P[2:]]


def _forms(body: str) -> list[Rule]:
    """The sum with the reductions and signs that authors give it."""
    return [
        (f"-mean({body})", "F.binary_cross_entropy_with_logits(z, y)"),
        (f"mean(-({body}))", "F.binary_cross_entropy_with_logits(z, y)"),
        (f"-sum({body})", 'F.binary_cross_entropy_with_logits(z, y, reduction="sum")'),
        (f"sum(-({body}))", 'F.binary_cross_entropy_with_logits(z, y, reduction="sum")'),
        (f"-({body})", _EACH),
        (body, f"-{_EACH}"),
    ]


RULES: list[Rule] = [
    *((pattern, template) for p, q in _PAIRS for pattern, template in _forms(f"y * log({p}) + (1 - y) * log({q})")),
    *((f"-y * log({p}) - (1 - y) * log({q})", _EACH) for p, q in _PAIRS),
    *((f"binary_cross_entropy({p}, y, ...)", "F.binary_cross_entropy_with_logits(z, y, ...)") for p in guarded("sigmoid(z)")),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite the formula and `binary_cross_entropy` of a sigmoid."""
    return rewrite(source, finding.location, RULES)
