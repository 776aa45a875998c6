"""What gives a pre-activation its offset or its size: the bias, the weight or the constant that an author would edit.

A unit is dead or saturated at its nonlinearity, but the line to edit is the one that wrote the bias, sampled the weight from
one side of zero, or multiplied the signal on its way.
"""

from __future__ import annotations

from stabdiag.evidence.graph.main_path import is_layer
from stabdiag.evidence.signal.depth import data_of, weights_of
from stabdiag.evidence.signal.initialisation import NORMALISATIONS
from stabdiag.trace import Op, Parameter, Run, Stats

ENLARGED = 3.0  # times the size before, for a factor to count as what made a signal large
ONE_SIDED = 1.0  # |mean| / std of a weight; 1.7 where it is uniform on one side of zero, n^-½ for n draws around zero
_THROUGH = (
    "add",
    "sub",
    "mul",
    "div",
    "clamp",
    "clamp_min",
    "clamp_max",
    "native_dropout",
    "neg",
    "rsub",
    "masked_fill",
    "where",
)


def bias_behind(run: Run, layer: str, mean: float) -> Parameter | None:
    """The vector of a layer that makes at least half of the mean of a pre-activation."""
    vectors = [
        (p.stats.mean if mean > 0 else -p.stats.mean, p)
        for p in run.parameters
        if p.module == layer and len(p.shape) == 1 and isinstance(p.stats, Stats) and p.stats.sampled
    ]
    most, vector = max(vectors, key=lambda found: found[0], default=(0.0, None))
    return vector if most > 0 and most >= 0.5 * abs(mean) else None


def one_sided_weight(run: Run, value_id: int, mean: float) -> Parameter | None:
    """The weight of the layer in front of a value, where it lies to one side of zero and its data does too, and that makes the
    sign of the value's mean."""
    for layer in layers_before(run, value_id):
        data = run.values[run.behind_views(data_of(run, layer))].stats
        for p in run.parameters:
            if p.name not in weights_of(run, layer) or p.stats is None or data is None or not data.sampled:
                continue
            leans = abs(p.stats.mean) > ONE_SIDED * p.stats.std and p.stats.mean * data.mean * mean > 0
            if leans and (data.min >= 0 or data.max <= 0):
                return p
    return None


def enlarged_by(run: Run, value_id: int, layers: int = 0) -> Op | None:
    """The last op before a value that multiplies the signal by a constant, and so by more than `ENLARGED`, with at most so many
    layers and no normalisation in between."""
    front, seen = [(value_id, layers)], set()
    while front:
        current, left = front.pop(0)
        op = run.producer(run.behind_views(current))
        if op is None or op.index in seen:
            continue
        seen.add(op.index)
        if op.name in NORMALISATIONS:
            continue
        if is_layer(run, op):
            if left and op.name not in ("embedding", "_embedding_bag"):
                front.append((data_of(run, op), left - 1))
        elif op.name in _THROUGH:
            if _multiplies(run, op):
                return op
            front.extend((i, left) for i in op.inputs)
    return None


def layers_before(run: Run, value_id: int) -> list[Op]:
    """The nearest layers that a value comes from through views and elementwise ops."""
    front, seen, found = [value_id], set(), []
    while front:
        op = run.producer(run.behind_views(front.pop(0)))
        if op is None or op.index in seen:
            continue
        seen.add(op.index)
        if is_layer(run, op):
            found.append(op)
        elif op.name in _THROUGH:
            front.extend(op.inputs)
    return found


def _multiplies(run: Run, op: Op) -> bool:
    """Whether an op multiplies or divides a signal by one number, and makes it that much larger."""
    if op.name not in ("mul", "div") or not op.inputs:
        return False
    signals = [v for i in op.inputs if len((v := run.values[run.behind_views(i)]).shape) and v.kind != "buffer"]
    made = run.output_of(op)
    if len(signals) != 1 or made is None or made.stats is None or signals[0].stats is None:
        return False
    return made.stats.rms > ENLARGED * signals[0].stats.rms
