"""Keep the operand of a logarithm above 0.

log(0) is -inf and its slope infinite; clamped at 1e-6 it is -13.8. float16 holds 1e-6, and not the usual 1e-8.
"""

from __future__ import annotations

from stabdiag.editing.rewrite import Rule, rewrite, unless_guarded
from stabdiag.editing.source import Source
from stabdiag.finding import Finding

REPAIRS = ("SD608", "SD301", "SD505")
KEEPS_FUNCTION = False

RULES: list[Rule] = [
    ("log(x + eps)", "torch.log(x.clamp_min(1e-6))"),
    ("log(eps + 1 - x)", "torch.log((1 - x).clamp_min(1e-6))"),
    ("log(x)", unless_guarded("x", "torch.log(x.clamp_min(1e-6))")),
    ("log2(x)", unless_guarded("x", "torch.log2(x.clamp_min(1e-6))")),
    ("log10(x)", unless_guarded("x", "torch.log10(x.clamp_min(1e-6))")),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Clamp what the logarithm is taken of; an epsilon that is absorbed gives way to the clamp."""
    return rewrite(source, finding.location, RULES)
