"""Bound the largest singular value of the weights (spectral normalisation).

No layer can stretch its input, nor the gradient, by more than 1 (Miyato et al. 2018, arXiv:1802.05957).
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.statements import each

REPAIRS = ("SD102", "SD302")
KEEPS_FUNCTION = False


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
            lambda layer, named=named: f"nn.utils.parametrizations.spectral_norm({layer}{named})",  # type: ignore[misc]
        )
    return found or None
