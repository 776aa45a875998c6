"""Merge the runs of several batches into one: statistics and facts add, op by op."""

from __future__ import annotations

from stabdiag.recording.facts import add
from stabdiag.trace import Run
from stabdiag.trace.counterpart import keyed


def merge(into: Run, more: Run) -> None:
    """Add the statistics and facts of another batch. Ops are matched by their place and occurrence; what has no counterpart
    (another path through the model) is left out. The graph, errors and loss stay those of the first batch."""
    if more.error is not None:
        return
    theirs = dict(keyed(more))
    for key, op in keyed(into):
        other = theirs.get(key)
        if other is None:
            continue
        for mine, their in zip(op.outputs, other.outputs, strict=False):
            a, b = into.values[mine], more.values[their]
            if a.stats is not None and b.stats is not None:
                a.stats = a.stats + b.stats
            if a.gradient is not None and b.gradient is not None:
                a.gradient = a.gradient + b.gradient
        for name, fact in other.facts.items():
            op.facts[name] = add(op.facts[name], fact) if name in op.facts else fact
    gradients = {p.name: p for p in more.parameters}
    for parameter in into.parameters:
        there = gradients.get(parameter.name)
        if there is not None and there.gradient is not None:
            parameter.gradient = there.gradient if parameter.gradient is None else parameter.gradient + there.gradient
    into.batches += 1
