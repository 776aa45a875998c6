"""Learn length and direction of the weights apart (weight normalisation).

Each unit's weight keeps a length of its own, so that its direction is learned at a scale that does not drift (Salimans &
Kingma 2016, arXiv:1602.07868). The function is the same at the start.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.statements import each

REPAIRS = ("SD806",)
KEEPS_FUNCTION = True


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """The recurrent weights where the finding is about time, else every layer's."""
    over_time = "decades_per_step" in finding.evidence
    found: list[str] = []
    for leaf in dict.fromkeys(
        w.name.removeprefix(w.module).lstrip(".") for w in report.weights if w.recurrent or not over_time
    ):
        paths = [w.module for w in report.weights if w.name.endswith(f".{leaf}") and (w.recurrent or not over_time)]
        named = "" if leaf == "weight" else f', "{leaf}"'
        found += each(
            paths,
            report.modules,
            lambda layer, named=named: f"nn.utils.parametrizations.weight_norm({layer}{named})",  # type: ignore[misc]
        )
    return found or None
