"""Normalise queries and keys.

Dot products of vectors of fixed length cannot grow while they are trained, so the softmax stays soft (Henry et al. 2020,
arXiv:2010.04245; Dehghani et al. 2023, arXiv:2302.05442). The gain starts where logits have a spread of 1, and is learned.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.built import attribute

REPAIRS = ("SD402", "SD404", "SD405")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Where queries and keys come from a layer each."""
    width, scale = finding.evidence.get("head_width"), finding.evidence.get("logit_scale")
    paths = finding.evidence.get("projections")
    layers = {w.module: w for w in report.weights}
    if not paths or not width or not scale or any(path not in layers or not layers[path].units for path in paths):
        return None
    spread = scale * width**0.5
    found = []
    for path in paths:
        layer = attribute(path)
        found.append(f"{layer} = nn.Sequential({layer}, nn.RMSNorm({layers[path].units}))")
        if spread > 2:
            found.append(f"nn.init.constant_({layer}[1].weight, {spread**-0.5:.3g})")
    return found
