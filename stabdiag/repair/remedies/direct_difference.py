"""Take the difference of the points, not of their squares.

|a|² + |b|² - 2ab of two points that are close loses all digits and may be negative; (a - b)² does neither, at the price of a
tensor with one more dimension.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD503", "SD501", "SD302", "SD606")
KEEPS_FUNCTION = True


def _shaped(norm: str) -> list[str]:
    return [norm, f"index({norm})", f"unsqueeze({norm}, *any)", f"transpose({norm}, *any)"]


RULES: list[Rule] = [
    (form.format(a=a, b=b, ab=ab), "(x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)")
    for a in _shaped("sum(square(x), *any)")
    for b in _shaped("sum(square(y), *any)")
    for ab in ("2 * (x @ transpose(y, *any))", "2 * x @ transpose(y, *any)", "x @ transpose(y, *any) * 2")
    for form in ("{a} + {b} - {ab}", "{a} - {ab} + {b}")
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite squared distances by expansion as squares of differences."""
    return rewrite(source, finding.location, RULES)
