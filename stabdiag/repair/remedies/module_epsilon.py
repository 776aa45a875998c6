"""Give the normalisation module an epsilon that the format holds.

1e-8 and 1e-12 are 0 in float16; 1e-5 is torch's own default and 167 times its smallest number.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.statements import each

REPAIRS = ("SD505", "SD704", "SD301", "SD608")
KEEPS_FUNCTION = False


def statements(finding: Finding, report: SubjectReport) -> list[str] | None:
    """Only where the line of the finding reads `self.eps`: every module of that class gets the epsilon."""
    kind = report.modules.get(finding.module, "")
    if not kind or finding.location is None or "self.eps" not in finding.location.source:
        return None
    paths = [path for path, of in report.modules.items() if of == kind and path]
    found: list[str] = []
    for path in paths:
        found += each([path], report.modules, lambda layer: f"{layer}.eps = 1e-5")
    return found or None
