"""Use a norm instead of the root of a sum of squares.

The gradient of `vector_norm` at 0 is 0; that of the square root is infinite there, and 0 · inf is NaN.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.pattern import Match
from stabdiag.repair.editing.rewrite import Rule, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD606", "SD301")
KEEPS_FUNCTION = True


def _norm(source: Source, match: Match) -> str:
    rest = [source.code(arg).strip(", ") for arg in match.rest or ()]
    if rest and "=" not in rest[0]:
        rest[0] = f"dim={rest[0]}"  # the second argument of `vector_norm` is the order
    if len(rest) > 1 and "=" not in rest[1]:
        rest[1] = f"keepdim={rest[1]}"
    return f"torch.linalg.vector_norm({', '.join(['x', *rest])})"


RULES: list[Rule] = [
    ("sqrt(sum(square(x), ...))", _norm),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite sqrt(sum(x²))."""
    return rewrite(source, finding.location, RULES)
