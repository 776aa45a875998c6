"""Initialise the recurrent weights as the identity.

A ReLU recurrence that starts as the identity carries its state unchanged (Le, Jaitly & Hinton 2015, arXiv:1504.00941).
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._initialise import initialise

REPAIRS = ("SD101", "SD102")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Only for findings about time, on square recurrent weights."""
    if "decades_per_step" not in finding.evidence:
        return None
    square = [w for w in report.weights if w.recurrent and w.shape[0] == w.shape[1]]
    return initialise(report, square, lambda weight: "nn.init.eye_({})")
