"""Initialise the weights orthogonal, the recurrent ones with spectral radius 1.

An orthogonal recurrent weight neither shrinks nor stretches a gradient on its way through time (Saxe et al. 2014,
arXiv:1312.6120); elsewhere the gain is that of the nonlinearity behind the weight.
"""

from __future__ import annotations

from stabdiag.evidence.graph.structure import Weight
from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._initialise import concerned, initialise

REPAIRS = ("SD101", "SD102", "SD302", "SD701", "SD702")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """The recurrent weights where the finding is about time, else those that are off scale."""
    recurrent = [w for w in report.weights if w.recurrent]
    if "decades_per_step" in finding.evidence or (recurrent and finding.module in {w.module for w in recurrent}):
        return initialise(report, recurrent, _call)
    return initialise(report, concerned(finding, report), _call)


def _call(weight: Weight) -> str:
    if weight.recurrent:
        if weight.shape[0] == weight.shape[1]:
            return "nn.init.orthogonal_({})"
        return f"for gate in {{}}.data.split({weight.shape[1]}):\n    nn.init.orthogonal_(gate)"
    gain = {1.0: "", 2**0.5: ", gain=math.sqrt(2)", 5 / 3: ", gain=5 / 3"}.get(weight.wanted, f", gain={weight.wanted:g}")
    return f"nn.init.orthogonal_({{}}{gain})"
