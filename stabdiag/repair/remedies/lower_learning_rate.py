"""Lower the learning rate.

Gradient descent diverges along every direction whose curvature exceeds 2 over the learning rate.
"""

from __future__ import annotations

from typing import Any

from stabdiag.finding import Finding
from stabdiag.settings.request import ScanRequest

REPAIRS = ("SD801", "SD802", "SD201", "SD806")
KEEPS_FUNCTION = True


def settings(finding: Finding, request: ScanRequest) -> dict[str, Any] | None:
    """To what the curvature allows (SD802), the middle of the healthy update ratios (SD801, SD806), else a tenth."""
    evidence = finding.evidence
    lr = evidence.get("lr")
    if not lr:
        return None
    if evidence.get("ratio"):
        return {"lr": lr / evidence["ratio"] / 2}
    if "calmer_lr" in evidence:
        return {"lr": evidence["calmer_lr"]}
    if "median" in evidence:
        return {"lr": lr * 1e-2 / evidence["median"]} if evidence["median"] > 1e-1 else None
    return {"lr": lr / 10}
