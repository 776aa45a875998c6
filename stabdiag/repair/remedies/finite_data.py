"""Make the data finite before the model reads them.

One NaN in a batch is a NaN in every gradient. Where a missing value means something, say it with a mask of its own.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.data import prepared
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import spell
from stabdiag.rule import rule_of

REPAIRS = ("SD301", "SD703")
KEEPS_FUNCTION = False


def edit(source: Source, finding: Finding) -> str | None:
    """Replace NaN by 0 in front of the return of `example_inputs`."""
    if not any(fix.name == "finite-data" for fix in finding.fixes) and rule_of(finding).kind != "start":
        return None
    return prepared(source, lambda x: spell(source, f"torch.nan_to_num({x})"))
