"""Clip every gradient element by value.

Unlike a norm, which is computed from squares, a clamp cannot overflow: gradients above 1.8e19 keep their direction's signs
instead of becoming zero.
"""

from __future__ import annotations

from typing import Any

from stabdiag.finding import Finding
from stabdiag.settings.request import ScanRequest

REPAIRS = ("SD801", "SD805")
KEEPS_FUNCTION = True


def settings(finding: Finding, request: ScanRequest) -> dict[str, Any] | None:
    """`clip_grad_value_` at 1 in place of clipping by norm."""
    return None if request.clip_value is not None else {"clip": None, "clip_value": 1.0}
