"""Bring pixel values to -1 … 1.

What `ToTensor` and `Normalize(0.5, 0.5)` do with images from 0 to 255.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.data import prepared
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD703",)
KEEPS_FUNCTION = False


def edit(source: Source, finding: Finding) -> str | None:
    """Where the rule took the data for pixels."""
    if not any(fix.name == "scale-pixels" for fix in finding.fixes):
        return None
    return prepared(source, lambda x: f"{x} / 127.5 - 1")
