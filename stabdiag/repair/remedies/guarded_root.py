"""Keep the operand of a root above 0.

A difference that rounding makes negative gives NaN, a 0 an infinite slope; clamped at 1e-6 it gives neither.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, is_open_power, rewrite, unless_guarded, when
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD606", "SD608", "SD301", "SD503")
KEEPS_FUNCTION = False

RULES: list[Rule] = [
    ("sqrt(x)", unless_guarded("x", "torch.sqrt(x.clamp_min(1e-6))")),
    ("rsqrt(x)", unless_guarded("x", "torch.rsqrt(x.clamp_min(1e-6))")),
    ("pow(x, c)", when(is_open_power, "x.clamp_min(1e-6) ** c")),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Clamp what the root is taken of."""
    return rewrite(source, finding.location, RULES)
