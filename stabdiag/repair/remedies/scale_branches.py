"""Scale the last layer of every residual branch by 1/√(2N).

N branches of unit variance add up to a stream of variance 1 + N; scaled, to at most 1.5, at any depth (Radford et al. 2019
scale by 1/√N at initialisation).
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.statements import each

REPAIRS = ("SD102", "SD203", "SD302", "SD303")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Only where the model has two residual branches or more that end in a layer."""
    ends = [w for w in report.weights if w.ends_branch]
    if len(ends) < 2:
        return None
    factor = f"1 / math.sqrt({2 * len(ends)})"
    leaf = ends[0].name.removeprefix(ends[0].module).lstrip(".")
    return each([w.module for w in ends], report.modules, lambda layer: f"{layer}.{leaf}.data.mul_({factor})")
