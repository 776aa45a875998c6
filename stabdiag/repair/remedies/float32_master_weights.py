"""Keep the weights in float32 and compute under autocast.

An update below half the distance to the next number is lost where weights are stored in 16 bits. With float32 weights and
optimizer the 16-bit copies are made for each forward pass only (Micikevicius et al. 2018, arXiv:1710.03740).
"""

from __future__ import annotations

from typing import Any

from stabdiag.finding import Finding
from stabdiag.settings.request import ScanRequest

REPAIRS = ("SD504", "SD801")
KEEPS_FUNCTION = True


def settings(finding: Finding, request: ScanRequest) -> dict[str, Any] | None:
    """Autocast in place of every 16-bit precision the finding is about."""
    stored = [p for p in finding.precisions if p in ("float16", "bfloat16")]
    if not stored:
        return None
    names = [f"amp-{p}" if p in stored else p for p in request.precisions]
    return {"precisions": list(dict.fromkeys(names))}
