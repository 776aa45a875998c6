"""Standardise the data.

Weights are initialised for inputs of mean 0 and variance 1 (LeCun et al. 1998, "Efficient BackProp", section 4.3). The
statistics of the training set belong there; those of the batch stand in for them.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.data import prepared
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD703", "SD202", "SD302", "SD502", "SD503", "SD609", "SD804")
KEEPS_FUNCTION = False


def edit(source: Source, finding: Finding) -> str | None:
    """Subtract the mean of each feature and divide by its spread, in front of the return of `example_inputs`."""
    return prepared(source, lambda x: f"({x} - {x}.mean(0)) / ({x}.std(0) + 1e-5)")
