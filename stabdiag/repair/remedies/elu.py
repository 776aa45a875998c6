"""Use ELU.

Smooth and negative below zero: means are closer to 0, and no unit is off for good (Clevert et al. 2015, arXiv:1511.07289).
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._activate import replaced

REPAIRS = ("SD201", "SD202", "SD204")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Where the activations are modules."""
    return replaced(finding, report, "nn.ELU()")
