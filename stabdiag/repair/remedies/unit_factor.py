"""Let the factor that carries a state from step to step start at 1.

A state that is multiplied by a trained factor a at every step keeps its gradient over time at a = 1; at 1.15 it grows 1000
times within 50 steps. Below 1 it forgets, which training may choose.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.built import attribute

REPAIRS = ("SD102",)
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """The factor that the finding names."""
    factor = finding.evidence.get("factor")
    return [f"nn.init.ones_({attribute(factor)})"] if factor else None
