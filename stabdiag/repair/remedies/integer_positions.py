"""Keep positions and ids in int64.

bfloat16 counts to 256 and float16 to 2048; what is used as an index has to stay an integer on the way.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite
from stabdiag.repair.editing.source import Source
from stabdiag.rule import rule_of

REPAIRS = ("SD305", "SD002", "SD501")
KEEPS_FUNCTION = True

_CASTS = ("to(m, t)", "to(m, dtype=t)", "float(m)", "half(m)", "bfloat16(m)", "type(m, t)", "type_as(m, t)")

RULES: list[Rule] = [
    *((f"cumsum({cast}, ...)", "torch.cumsum(m.long(), ...)") for cast in _CASTS),
    ("cumsum(m, dim=d, dtype=t)", "torch.cumsum(m, dim=d, dtype=torch.long)"),
    ("arange(n, dtype=t, device=d)", "torch.arange(n, device=d)"),
    ("arange(n, device=d, dtype=t)", "torch.arange(n, device=d)"),
    ("arange(n, dtype=t)", "torch.arange(n)"),
    *((cast.replace("m", "arange(n, device=d)", 1), "torch.arange(n, device=d)") for cast in _CASTS),
    *((cast.replace("m", "arange(n)", 1), "torch.arange(n)") for cast in _CASTS),
    *((cast, "m.long()") for cast in _CASTS),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Take the cast to a floating-point dtype out, or make it one to int64."""
    if rule_of(finding).kind != "expression" and not finding.op.startswith(("arange", "cumsum")):
        return None
    return rewrite(source, finding.location, RULES)
