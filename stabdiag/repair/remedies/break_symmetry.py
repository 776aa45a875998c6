"""Add a little noise to units that start alike.

Units with equal weights get equal gradients and stay one unit. Noise of a hundredth of the usual size is enough to tell
them apart, and keeps what copied weights had learned.
"""

from __future__ import annotations

from stabdiag.evidence.graph.structure import Weight
from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._initialise import concerned, initialise

REPAIRS = ("SD701",)
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Not for weights that are all zero: those are drawn anew."""
    weights = concerned(finding, report)
    return None if any(w.gain == 0 for w in weights) else initialise(report, weights, _call)


def _call(weight: Weight) -> str:
    return f"{{0}}.data.add_({0.1 * weight.wanted / weight.fan_in**0.5:.2g} * torch.randn_like({{0}}))"
