"""Decay the weights.

Bounds weights, and with them logits and curvature, that grow while they are trained.
"""

from __future__ import annotations

from typing import Any

from stabdiag.finding import Finding
from stabdiag.settings.request import ScanRequest

REPAIRS = ("SD801", "SD802")
KEEPS_FUNCTION = True


def settings(finding: Finding, request: ScanRequest) -> dict[str, Any] | None:
    """At 0.1, where none is set."""
    return None if request.weight_decay is not None else {"weight_decay": 0.1}
