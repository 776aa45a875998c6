"""Initialise the biases at zero.

A bias far from zero decides alone whether a unit fires. At zero the pre-activation is centred and half of the units fire.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.statements import each
from stabdiag.repair.remedies._initialise import FAR_BIAS

REPAIRS = ("SD103", "SD201", "SD202")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """All biases that are far from zero, where there are any; that of the normalisation which the finding is about."""
    if "Norm" in report.modules.get(finding.module, ""):
        return each([finding.module], report.modules, lambda layer: f"nn.init.zeros_({layer}.bias)")
    far = [w for w in report.weights if w.bias and abs(w.bias_mean) > FAR_BIAS]
    leaves = {w.bias.removeprefix(w.module).lstrip(".") for w in far}
    if len(leaves) != 1:
        return None
    leaf = leaves.pop()
    return each([w.module for w in far], report.modules, lambda layer: f"nn.init.zeros_({layer}.{leaf})")
