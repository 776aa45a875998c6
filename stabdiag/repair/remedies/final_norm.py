"""Normalise in front of the output layer.

A residual stream grows with every block that adds to it; a LayerNorm behind the last block hands the head, and the blocks
on the way back, a signal of unit size (Xiong et al. 2020, arXiv:2002.04745).
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.built import attribute

REPAIRS = ("SD102", "SD203", "SD302", "SD705")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Only behind a residual stream, in front of a linear layer that reads its features last."""
    if not any(w.ends_branch for w in report.weights):
        return None
    if not report.weights or (last := report.weights[-1]).kind != "Linear":
        return None
    layer = attribute(last.module)
    return [f"{layer} = nn.Sequential(nn.LayerNorm({last.input_channels}), {layer})"] if last.module else None
