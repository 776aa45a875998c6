"""Use a normalised GELU where a saturating function is called.

A sigmoid hands back at most a quarter of its gradient, a tanh nothing where it is saturated. GELU behind a normalisation does
neither vanish nor drift with depth.
"""

from __future__ import annotations

from stabdiag.editing.pattern import Match
from stabdiag.editing.rewrite import Rule, rewrite
from stabdiag.editing.source import Source
from stabdiag.finding import Finding

REPAIRS = ("SD101", "SD202", "SD205")
KEEPS_FUNCTION = False


def _normalised(source: Source, match: Match) -> str | None:
    """For functions applied to a call, whose width is the layer's own."""
    return "F.gelu(F.layer_norm(h, h.shape[-1:]))" if source.code(match.bound["h"]).isidentifier() else "F.gelu(h)"


RULES: list[Rule] = [(f"{name}(h)", _normalised) for name in ("sigmoid", "tanh", "hardtanh", "hardsigmoid", "softsign")]


def edit(source: Source, finding: Finding) -> str | None:
    """Replace the function that the finding marks."""
    return rewrite(source, finding.location, RULES)
