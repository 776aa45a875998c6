"""The same op in two runs of one model: matched by where it is called and how often before, never by position.

Casts and autocast insert ops of their own, so positions differ between precisions while places do not.
"""

from __future__ import annotations

from stabdiag.trace import Op, Run, Trace, Value
from stabdiag.trace.derived import derived


@derived
def keyed(run: Run) -> list[tuple[tuple[object, ...], Op]]:
    """Every op with its identity across runs: site, call of its module, occurrence there."""
    counts: dict[tuple[object, ...], int] = {}
    pairs: list[tuple[tuple[object, ...], Op]] = []
    for op in run.ops:
        site = (*op.site, op.call)
        occurrence = counts.get(site, 0)
        counts[site] = occurrence + 1
        pairs.append(((*site, occurrence), op))
    return pairs


class Counterparts:
    """Ops and values of one run in another, by place."""

    def __init__(self, run: Run, other: Run) -> None:
        self.other = other
        theirs = dict(keyed(other))
        self._ops = {op.index: theirs[key] for key, op in keyed(run) if key in theirs}

    def op(self, op: Op) -> Op | None:
        """The same op in the other run, None where it has none."""
        return self._ops.get(op.index)

    def value(self, run: Run, value_id: int) -> Value | None:
        """The same value in the other run: the same result of the same op, or the leaf of the same name."""
        value = run.values[value_id]
        if value.op is None:
            named = (v for v in self.other.values if value.name and (v.kind, v.name) == (value.kind, value.name))
            return next(named, None)
        there = self.op(run.ops[value.op])
        slot = run.ops[value.op].outputs.index(value_id)
        if there is None or slot >= len(there.outputs):
            return None
        found = self.other.values[there.outputs[slot]]
        return found if found.shape == value.shape else None


def reference_of(trace: Trace) -> Run | None:
    """The run that low precisions are judged against: float64, else float32; None when neither got through."""
    for precision in ("float64", "float32"):
        run = trace.run(precision)
        if run is not None and run.error is None and run.ops:
            return run
    return None
