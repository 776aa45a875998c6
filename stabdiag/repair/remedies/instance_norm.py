"""Normalise every channel of every sample behind a convolution (InstanceNorm).

Independent of the batch and of the other channels (Ulyanov et al. 2016, arXiv:1607.08022); it drops each channel's mean,
which generators do not need and classifiers may.
"""

from __future__ import annotations

from stabdiag.evidence.graph.structure import Weight
from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._normalise import WRAPPED, behind_layers

REPAIRS = ("SD102", "SD202", "SD203")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Behind convolutions."""
    return behind_layers(finding, report, _norm)


def _norm(layer: Weight) -> str | None:
    dims = WRAPPED[layer.kind]
    return f"nn.InstanceNorm{dims}d({layer.units}, affine=True)" if dims else None
