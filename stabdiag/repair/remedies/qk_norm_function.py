"""Normalise queries and keys where their product is taken.

Scores of normalised vectors are bounded by the width, whatever the weights grow to (Henry et al. 2020, "Query-Key Normalization
for Transformers"; Dehghani et al. 2023 need it from 8 billion parameters on).
"""

from __future__ import annotations

import libcst as cst

from stabdiag.finding import Finding
from stabdiag.repair.editing.pattern import matches
from stabdiag.repair.editing.rewrite import nearby
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import spell

REPAIRS = ("SD404", "SD405", "SD402", "SD302")
KEEPS_FUNCTION = False


def edit(source: Source, finding: Finding) -> str | None:
    """Norm both factors of the product of scores, or the first two arguments of scaled_dot_product_attention."""
    marked = source.at(finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        for pattern in ("q @ transpose(k, *any)", "scaled_dot_product_attention(q, k, v, ...)"):
            for match in matches(source, pattern, node):
                query, key = match.bound["q"], match.bound["k"]
                if isinstance(query, cst.Name) and isinstance(key, cst.Name) and (line := source.statement(query)) is not None:
                    made = [f"{n} = F.rms_norm({n}, {n}.shape[-1:])" for n in dict.fromkeys((query.value, key.value))]
                    done = source.lines[source.line(line) - 2].strip() in made
                    return None if done else source.spliced([source.before(line, [spell(source, m) for m in made])])
    return None
