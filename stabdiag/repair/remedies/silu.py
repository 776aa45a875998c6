"""Use SiLU.

x·σ(x) has a gradient on both sides of zero and does not saturate above it (Elfwing et al. 2017, arXiv:1702.03118).
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._activate import replaced

REPAIRS = ("SD201", "SD202", "SD204")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Where the activations are modules."""
    return replaced(finding, report, "nn.SiLU()")
