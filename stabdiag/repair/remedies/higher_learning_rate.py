"""Raise the learning rate.

Weights that change by less than a hundred-thousandth per step do not get anywhere, and in a 16-bit format do not change at
all.
"""

from __future__ import annotations

from typing import Any

from stabdiag.finding import Finding
from stabdiag.settings.request import ScanRequest

REPAIRS = ("SD504", "SD801", "SD806")
KEEPS_FUNCTION = True


def settings(finding: Finding, request: ScanRequest) -> dict[str, Any] | None:
    """To an update of a thousandth of the weights where the ratio was measured, else tenfold."""
    lr, ratio = finding.evidence.get("lr"), finding.evidence.get("median")
    if not lr or (ratio and ratio > 1e-3):
        return None
    return {"lr": lr * min(1e4, 1e-3 / ratio) if ratio else lr * 10}
