"""Use GELU with the initialisation that fits it.

Each bounded activation hands back a fraction of the gradient, a sigmoid at most a quarter. GELU does not saturate; the
weights in front of it get its gain, because those of a bounded activation or torch's own default are too small for depth.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.remedies._activate import replaced
from stabdiag.repair.remedies._initialise import initialise

REPAIRS = ("SD101", "SD103", "SD202")
KEEPS_FUNCTION = False

_GAIN = 1.53  # 1/√E[GELU(z)²] for z ~ N(0, 1), by numerical integration


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Where the activations are modules; all weights that feed one are initialised."""
    lines = replaced(finding, report, "nn.GELU()")
    if lines is None:
        return None
    feeding = [w for w in report.weights if w.nonlinearity and not w.normalised and not w.recurrent and not w.reads_input]
    feeding += [w for w in report.weights if w.nonlinearity and not w.normalised and w.reads_input]
    init = initialise(report, feeding, lambda weight: f"nn.init.xavier_normal_({{}}, gain={_GAIN})")
    return lines + (init or [])
