"""Warm the learning rate up.

The curvature is largest at the start, and Adam's second moment is an estimate from few gradients; a rate that rises over
the first steps keeps updates small until both have settled (Goyal et al. 2017, arXiv:1706.02677; Liu et al. 2020,
arXiv:1908.03265).
"""

from __future__ import annotations

from typing import Any

from stabdiag.finding import Finding
from stabdiag.settings.request import ScanRequest

REPAIRS = ("SD801", "SD802")
KEEPS_FUNCTION = True

STEPS = 1000


def settings(finding: Finding, request: ScanRequest) -> dict[str, Any] | None:
    """Linearly from 0 over 1,000 steps."""
    return None if request.warm_up else {"warm_up": STEPS}
