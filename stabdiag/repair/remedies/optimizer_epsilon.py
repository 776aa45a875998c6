"""Give the optimizer an epsilon that fits its gradients and its format.

Adam divides by √v + ε: an ε above the gradients turns it into slow gradient descent, one that is 0 in float16 divides by
zero.
"""

from __future__ import annotations

from typing import Any

from stabdiag.finding import Finding
from stabdiag.settings.request import ScanRequest

REPAIRS = ("SD106", "SD505", "SD801")
KEEPS_FUNCTION = True


def settings(finding: Finding, request: ScanRequest) -> dict[str, Any] | None:
    """A thousandth of the typical gradient, or 1e-4 where float16 cannot hold the optimizer's own."""
    if request.eps is not None:
        return None
    if finding.evidence.get("ratio") and finding.evidence.get("eps"):
        return {"eps": max(1e-30, finding.evidence["ratio"] * finding.evidence["eps"] * 1e-3)}
    if finding.phase == "step" and finding.precisions == ["float16"]:
        return {"eps": 1e-4}
    return None
