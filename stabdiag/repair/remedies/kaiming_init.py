"""Initialise the weights for the rectifier behind them (He).

Weights of standard deviation √2/√fan_in keep the mean square of a signal through a ReLU (He et al. 2015, arXiv:1502.01852);
layers with another nonlinearity behind them get its gain, and the output layer gain 1. Biases far from zero are set to it.
"""

from __future__ import annotations

from stabdiag.evidence.graph.structure import Weight
from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._initialise import concerned, initialise, plain, scaled_normal

REPAIRS = ("SD101", "SD102", "SD103", "SD201", "SD203", "SD204", "SD302", "SD303", "SD701", "SD702")
KEEPS_FUNCTION = False

_RECTIFIER_GAIN = 2**0.5


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Only where a rectifier is behind one of the weights."""
    weights = concerned(finding, report)
    if not any(abs(w.wanted - _RECTIFIER_GAIN) < 1e-3 for w in weights):
        return None
    return initialise(report, weights, _call)


def _call(weight: Weight) -> str:
    if not plain(weight):
        return scaled_normal(weight, weight.wanted)
    if abs(weight.wanted - _RECTIFIER_GAIN) < 1e-3:
        return "nn.init.kaiming_normal_({}, nonlinearity='relu')"
    if not weight.nonlinearity:
        return "nn.init.kaiming_normal_({}, nonlinearity='linear')"
    return scaled_normal(weight, weight.wanted)
