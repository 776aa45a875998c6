"""Use a GRU in place of the plain recurrence.

Its update gate lets the state pass unchanged from step to step (Cho et al. 2014, arXiv:1406.1078); its results have the
shapes of an RNN's.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._recurrent import gated

REPAIRS = ("SD101", "SD102")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Every `nn.RNN`."""
    return gated(finding, report, "GRU")
