"""Normalise the size behind every layer, not the mean (RMSNorm).

Keeps the scale through depth at half the cost of LayerNorm (Zhang & Sennrich 2019, arXiv:1910.07467).
"""

from __future__ import annotations

from stabdiag.evidence.graph.structure import Weight
from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._normalise import WRAPPED, behind_layers

REPAIRS = ("SD102", "SD203", "SD302")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Behind linear layers."""
    return behind_layers(finding, report, _norm)


def _norm(layer: Weight) -> str | None:
    return f"nn.RMSNorm({layer.units})" if WRAPPED[layer.kind] == 0 else None
