"""Initialise the biases at zero.

A bias far from zero decides alone whether a unit fires. At zero the pre-activation is centred and half of the units fire.
"""

from __future__ import annotations

from stabdiag.editing.built import attribute
from stabdiag.finding import Finding
from stabdiag.report import SubjectReport

REPAIRS = ("SD201", "SD202")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """One line for the layer whose units are dead."""
    layer = finding.evidence.get("layer") or finding.module
    return [f"torch.nn.init.zeros_({attribute(str(layer))}.bias)"] if layer else None
