"""Compute the named lines in float64 and cast the result back.

29 bits more for a difference that cancels; slow on GPUs, so for a few lines only.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.island import island
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD503", "SD609", "SD501")
KEEPS_FUNCTION = True


def edit(source: Source, finding: Finding) -> str | None:
    """Upcast what goes into the lines around the finding."""
    return island(source, finding.location, "double")
