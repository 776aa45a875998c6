"""Use logsumexp instead of the logarithm of a sum of exponentials.

`logsumexp` subtracts the largest term first; without that, one exponent above 88.7 (11.1 in float16) is infinite.
"""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.repair.editing.rewrite import Rule, guarded, rewrite
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD603", "SD608", "SD302", "SD301", "SD605")
KEEPS_FUNCTION = True

RULES: list[Rule] = [
    *(
        (f"log({s})", lambda source, match: "torch.logsumexp(z, ...)" if match.rest else None)
        for s in guarded("sum(exp(z), ...)")
    ),
]


def edit(source: Source, finding: Finding) -> str | None:
    """Rewrite log(sum(exp(z), d)) as logsumexp(z, d)."""
    return rewrite(source, finding.location, RULES)
