"""Use PReLU.

The slope below zero is learned (He et al. 2015, arXiv:1502.01852).
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._activate import replaced

REPAIRS = ("SD201", "SD204")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Where the activations are modules."""
    return replaced(finding, report, "nn.PReLU()")
