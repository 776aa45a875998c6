"""Use a normalised GELU where a saturating function is called.

A sigmoid hands back at most a quarter of its gradient, a tanh nothing where it is saturated. GELU behind a normalisation
neither vanishes nor drifts with depth.
"""

from __future__ import annotations

import libcst as cst

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import nearby, replacement
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import head, spell

REPAIRS = ("SD101", "SD202", "SD205")
KEEPS_FUNCTION = False

_SATURATING = ("sigmoid", "tanh", "hardtanh", "hardsigmoid", "softsign")


def edit(source: Source, finding: Finding) -> str | None:
    """Replace the function that the finding marks, or the only one of the file; what it is applied to gets a name where it has
    none."""
    marked = source.at(finding.location)
    saturating = [call for call in source.all(cst.Call) if (made := head(source, call)) is not None and made.op in _SATURATING]
    for node in (*(nearby(source, marked) if marked is not None else ()), *(saturating if len(saturating) == 1 else ())):
        made = head(source, node)
        if made is None or made.op not in _SATURATING:
            continue
        operand = made.operands[0]
        if isinstance(operand, cst.Name):
            return source.spliced([replacement(source, node, _normalised(source, operand.value))])
        line = source.statement(node)
        if line is None or source.around(node, cst.BaseComp) is not None or source.around(node, cst.Lambda) is not None:  # type: ignore[type-abstract]
            continue
        name = next(n for n in ("hidden", "before", "raw") if not source.named(n))
        named = source.before(line, [f"{name} = {source.code(operand)}"])
        return source.spliced([named, replacement(source, node, _normalised(source, name))])
    return None


def _normalised(source: Source, name: str) -> str:
    return spell(source, f"F.gelu(F.layer_norm({name}, {name}.shape[-1:]))")
