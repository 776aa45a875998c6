"""Scale the loss, and the gradients back.

Multiplying the loss by a power of two lifts all gradients of the backward pass above the smallest number of float16; they
are divided by it in float32 before the step (Micikevicius et al. 2018, arXiv:1710.03740). Nothing rounds differently
otherwise.
"""

from __future__ import annotations

from typing import Any

from stabdiag.finding import Finding
from stabdiag.settings.request import ScanRequest

REPAIRS = ("SD104", "SD801", "SD803")
KEEPS_FUNCTION = True

CAST = 2.0**15  # the largest scale that the float16 loss of a model cast to float16 can carry


def settings(finding: Finding, request: ScanRequest) -> dict[str, Any] | None:
    """The scale that was measured, for float16."""
    scale = finding.evidence.get("loss_scale")
    if not scale or float(scale) == 1.0 or (request.loss_scale or 0.0) >= float(scale):
        return None
    if any(p.removeprefix("amp-") != "float16" for p in finding.precisions):
        return None
    return {"loss_scale": min(float(scale), CAST) if "float16" in finding.precisions else float(scale)}
