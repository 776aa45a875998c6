"""Initialise the output layer small.

The first outputs are then near zero: a softmax starts uniform, a sigmoid or tanh in its steep part, and the first loss is
that of not knowing.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._initialise import initialise
from stabdiag.rule import rule_of

REPAIRS = ("SD202", "SD302", "SD303", "SD401", "SD602", "SD705")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """The last layer, where it is larger than a unit-variance output needs or the finding is about it or the first loss."""
    if not report.weights:
        return None
    last = report.weights[-1]
    if rule_of(finding).level != "model" and finding.module != last.module:
        return None
    return initialise(report, [last], lambda weight: "nn.init.normal_({}, std=0.01)")
