"""Initialise the last layer of every residual branch at zero.

The network then starts as the identity, whatever its depth, and its branches grow as they are trained (Goyal et al. 2017,
arXiv:1706.02677; Zhang et al. 2019, arXiv:1901.09321).
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._initialise import initialise

REPAIRS = ("SD102", "SD203", "SD302")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Only where the model has residual branches that end in a layer."""
    return initialise(report, [w for w in report.weights if w.ends_branch], lambda weight: "nn.init.zeros_({})")
