"""Initialise the weights with the mean of fan-in and fan-out (Xavier), with the gain of the nonlinearity behind them.

Keeps the variance of the signal and of its gradient where fan-in and fan-out are alike (Glorot & Bengio 2010). Biases far
from zero are set to it.
"""

from __future__ import annotations

from stabdiag.evidence.graph.structure import Weight
from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._initialise import concerned, initialise, plain, scaled_normal

REPAIRS = ("SD101", "SD102", "SD103", "SD202", "SD203", "SD302", "SD303", "SD402", "SD404", "SD405", "SD701", "SD702")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """For every weight that the finding is about."""
    return initialise(report, concerned(finding, report), _call)


def _call(weight: Weight) -> str:
    if not plain(weight) and len(weight.shape) == 2:
        return scaled_normal(weight, weight.wanted)
    gain = {5 / 3: ", gain=5 / 3", 1.0: "", 2**0.5: ", gain=math.sqrt(2)"}.get(weight.wanted, f", gain={weight.wanted:g}")
    return f"nn.init.xavier_normal_({{}}{gain})"
