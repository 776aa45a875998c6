"""Divide pixel values by 255.

What `ToTensor` does: images from 0 to 255 become images from 0 to 1.
"""

from __future__ import annotations

from stabdiag.editing.data import prepared
from stabdiag.editing.source import Source
from stabdiag.finding import Finding

REPAIRS = ("SD703",)
KEEPS_FUNCTION = False


def edit(source: Source, finding: Finding) -> str | None:
    """Where the data look like pixels: not negative and at most 255."""
    largest = [v for v in finding.evidence.values() if isinstance(v, int | float) and 100 < v <= 255.0]
    return prepared(source, lambda x: f"{x} / 255") if largest else None
