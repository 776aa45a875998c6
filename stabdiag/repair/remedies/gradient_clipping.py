"""Clip the gradient norm.

A step along a gradient of any size is then bounded (Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063). The gradients
themselves stay as they are: where initialisation explodes, clipping hides it.
"""

from __future__ import annotations

from typing import Any

from stabdiag.finding import Finding
from stabdiag.settings.request import ScanRequest

REPAIRS = ("SD801", "SD802", "SD803")
KEEPS_FUNCTION = True


def settings(finding: Finding, request: ScanRequest) -> dict[str, Any] | None:
    """Clip to 1, the usual norm, or to a tenth of the measured one where that is smaller."""
    if request.clip is not None:
        return None
    norm = finding.evidence.get("gradient_norm")
    return {"clip": 1.0 if not norm or norm > 1.0 else 0.1 * norm}
