"""Compute the named lines in float32 and cast the result back.

float32 has 13 bits more than float16 and 29 orders of magnitude more range; autocast keeps reductions, norms and exponentials
in it for this reason. The island is the whole function where it runs no layer of its own, else the marked expression.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.island import island
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD301", "SD302", "SD303", "SD304", "SD501", "SD503", "SD505", "SD608", "SD609")
KEEPS_FUNCTION = True


def edit(source: Source, finding: Finding) -> str | None:
    """Upcast what goes into the lines around the finding."""
    if "float32" in finding.precisions:
        return None
    return island(source, finding.location, "float")
