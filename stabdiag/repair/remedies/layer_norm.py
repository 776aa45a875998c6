"""Normalise behind every layer (LayerNorm; over all channels, GroupNorm with one group, behind a convolution).

Every layer then gets inputs of mean 0 and variance 1, whatever the layers before it do (Ba, Kiros & Hinton 2016,
arXiv:1607.06450). Needs no batch statistics.
"""

from __future__ import annotations

from stabdiag.evidence.graph.structure import Weight
from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._normalise import WRAPPED, behind_layers

REPAIRS = ("SD101", "SD102", "SD202", "SD203", "SD204", "SD302")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Behind layers that a nonlinearity follows and nothing normalises yet."""
    return behind_layers(finding, report, _norm)


def _norm(layer: Weight) -> str:
    return f"nn.LayerNorm({layer.units})" if WRAPPED[layer.kind] == 0 else f"nn.GroupNorm(1, {layer.units})"
