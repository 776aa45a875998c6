"""Make the operand positive.

`softplus` is above 0 everywhere and close to its operand where that is large: a scale, a rate, a variance stays one.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, is_open_power, rewrite, unless_guarded, when
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD608", "SD605")
KEEPS_FUNCTION = False

RULES: list[Rule] = [
    ("log(x)", unless_guarded("x", "torch.log(F.softplus(x) + 1e-6)")),
    ("a / b", unless_guarded("b", "a / (F.softplus(b) + 1e-6)")),
    ("pow(x, c)", when(is_open_power, "(F.softplus(x) + 1e-6) ** c")),
    ("exp(x)", "F.softplus(x)"),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Pass the operand through a softplus; an exponential becomes one."""
    return rewrite(source, finding.location, RULES)
