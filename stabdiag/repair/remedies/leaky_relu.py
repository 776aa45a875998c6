"""Use LeakyReLU.

A unit that is off passes a hundredth of its gradient on, so that it can come back (Maas, Hannun & Ng 2013).
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._activate import replaced

REPAIRS = ("SD103", "SD201", "SD204")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Where the activations are modules."""
    return replaced(finding, report, "nn.LeakyReLU(0.01)")
