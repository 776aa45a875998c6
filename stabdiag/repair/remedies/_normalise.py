"""What the remedies that insert a normalisation share: behind which layers, and how it is written."""

from __future__ import annotations

from collections.abc import Callable

from stabdiag.evidence.graph.structure import Weight
from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.statements import replace_each
from stabdiag.rule import rule_of


def behind_layers(finding: Finding, report: SubjectReport, norm: Callable[[Weight], str | None]) -> list[str] | None:
    """Statements that put a normalisation behind every layer that needs one.

    Args:
        norm: the normalisation as code for a layer's output, None where it does not fit.
    """
    layers = [
        w for w in report.weights if w.units and not w.recurrent and not w.normalised and w.nonlinearity and w.kind in WRAPPED
    ]
    if rule_of(finding).level == "layer":  # the others are about the whole depth
        layers = [w for w in layers if w.module == finding.module]
    by_norm: dict[str, list[str]] = {}
    for layer in layers:
        code = norm(layer)
        if code is not None:
            by_norm.setdefault(code, []).append(layer.module)
    found: list[str] = []
    for code, paths in by_norm.items():
        found += replace_each(paths, report.modules, lambda layer, code=code: f"nn.Sequential({layer}, {code})")  # type: ignore[misc]
    return found or None


WRAPPED = {"Linear": 0, "Conv1d": 1, "Conv2d": 2, "Conv3d": 3, "ConvTranspose1d": 1, "ConvTranspose2d": 2, "ConvTranspose3d": 3}
"""Layers that map one tensor to one tensor, and over how many dimensions each slides."""
