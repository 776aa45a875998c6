"""Bring the loss to the order of 1.

Adaptive optimizers do not depend on the size of the loss, except where gradients come near their epsilon or their squares
leave the range of float32. A constant factor in the loss moves them away from both.
"""

from __future__ import annotations

from math import log10
from typing import Any

from stabdiag.finding import Finding
from stabdiag.settings.request import ScanRequest

REPAIRS = ("SD106", "SD805")
KEEPS_FUNCTION = True


def settings(finding: Finding, request: ScanRequest) -> dict[str, Any] | None:
    """The power of ten that brings typical gradients to a thousand times epsilon, or an overflowing norm to 1."""
    evidence = finding.evidence
    if "gradient_norm" in evidence:
        factor = 1 / evidence["gradient_norm"]
    elif evidence.get("ratio"):
        factor = 1e3 / evidence["ratio"]
    else:
        return None
    return {"loss_factor": request.loss_factor * 10.0 ** round(log10(factor))}
