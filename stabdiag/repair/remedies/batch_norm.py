"""Normalise behind every layer with the statistics of the batch (BatchNorm).

Each unit gets mean 0 and variance 1 over the batch (Ioffe & Szegedy 2015, arXiv:1502.03167), so that it is on one side of
its nonlinearity for some samples and on the other for the rest. Needs batches of 16 and more.
"""

from __future__ import annotations

from stabdiag.evidence.graph.structure import Weight
from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._normalise import WRAPPED, behind_layers

REPAIRS = ("SD101", "SD102", "SD201", "SD202", "SD203", "SD204")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Behind convolutions, and behind linear layers of samples × features."""
    return behind_layers(finding, report, _norm)


def _norm(layer: Weight) -> str | None:
    dims = WRAPPED[layer.kind]
    if dims == 0 and layer.input_dims != 2:
        return None
    return f"nn.BatchNorm{dims or 1}d({layer.units})"
