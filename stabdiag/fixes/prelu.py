"""Use PReLU.

The slope below zero is learned (He et al. 2015, arXiv:1502.01852).
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.fixes._activate import replaced
from stabdiag.report import SubjectReport

REPAIRS = ("SD201", "SD204")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Where the activations are modules."""
    return replaced(finding, report, "nn.PReLU()")
