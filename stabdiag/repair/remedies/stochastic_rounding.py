"""Round the updated weights up or down at random.

A weight that is rounded up with the probability of its distance from the number below moves by its update on average,
however small that is (Gupta et al. 2015, arXiv:1502.02551; Zamirai et al. 2020, arXiv:2010.06192).
"""

from __future__ import annotations

from typing import Any

from stabdiag.finding import Finding
from stabdiag.settings.request import ScanRequest

REPAIRS = ("SD504",)
KEEPS_FUNCTION = True


def settings(finding: Finding, request: ScanRequest) -> dict[str, Any] | None:
    """For weights that are stored in 16 bits."""
    return None if request.stochastic_rounding else {"stochastic_rounding": True}
