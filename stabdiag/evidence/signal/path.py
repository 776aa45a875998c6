"""The one way through a recorded run along which signals are judged over depth.

From the loss backwards: at every op to the input that carries most of the gradient. What other inputs of the op are computed
from carries what they hand back and its own: the stream of a residual network, not its branch. Terms of a sum get one and the
same gradient; there the largest is the one. What has no gradient to carry (a mask, an adjacency matrix, weights) is not
followed while anything else is there. Places in the code that the way passes again and again with the same weights are time,
not depth: the last pass stands for them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

from stabdiag.evidence.graph.main_path import Station, is_layer
from stabdiag.evidence.signal.depth import gradient_of
from stabdiag.trace import Op, Run, Stats
from stabdiag.trace.dependence import dependence
from stabdiag.trace.derived import derived

EQUAL = 1.01  # ratio of gradients that tells nothing: their norms are estimated from samples


@derived
def signal_path(run: Run) -> list[Station]:
    """The stations of the way, from the data to the loss: the value behind every trained layer, or behind every addition that
    layers off the way feed. Empty when the run broke before its loss."""
    layers = [op for op in run.phase("forward", "loss") if is_layer(run, op)]
    indices = [layer.index for layer in layers]
    way = _way(run)
    seen: set[tuple[Any, ...]] = set()
    stations: list[Station] = []
    starts = [0, *(op.index + 1 for op in way)]
    for first, op in reversed(list(zip(starts, way, strict=False))):
        between = layers[bisect_left(indices, first) : bisect_right(indices, op.index)]
        passed = {_place(run, layer): layer.layer for layer in between}
        new = passed.keys() - seen
        if new and not op.view:
            seen |= new
            stations.append(Station(op, run.values[op.outputs[0]], 0, tuple(passed[place] for place in passed if place in new)))
    return [Station(s.op, s.value, depth, s.layers) for depth, s in enumerate(stations[::-1])]


def _way(run: Run) -> list[Op]:
    """The ops of the way in order of execution."""
    op = None if run.loss_value is None else run.producer(run.loss_value)
    depends = dependence(run)
    way: list[Op] = []
    while op is not None:
        way.append(op)
        made = [i for i in op.inputs if (by := run.producer(i)) is not None and by.phase in ("forward", "loss")]
        signals = [i for i in made if depends.named(i)] if depends.named(op.outputs[0]) else made
        op = run.producer(_heaviest(run, signals)) if signals and op.name != "detach" else None
    return way[::-1]


def _heaviest(run: Run, value_ids: list[int]) -> int:
    """Of the values that are computed from no other one, the one with the largest gradient; where gradients are equal, those of
    the terms of a sum, the one with the largest signal."""
    gradients = {i: 0.0 if (g := gradient_of(run, i)) is None or not g.sampled else g.norm for i in value_ids}
    carriers = [i for i in value_ids if not any(gradients[j] > 0 and _comes_from(run, i, j) for j in value_ids if j != i)]
    most = max(gradients[i] for i in carriers)
    equal = [i for i in carriers if gradients[i] >= most / EQUAL]
    return max(equal, key=lambda i: _size(run.values[run.behind_views(i)].stats))


def _comes_from(run: Run, value_id: int, other: int) -> bool:
    """Whether a value is computed from another one, whose gradient then holds all that the value hands back."""
    source = run.values[run.behind_views(other)].op
    stack, seen = [run.values[run.behind_views(value_id)].op], set[int]()
    if source is None or stack == [source]:
        return False
    while stack:
        index = stack.pop()
        if index == source:
            return True
        if index is not None and index > source and index not in seen:
            seen.add(index)
            stack.extend(run.values[i].op for i in run.ops[index].inputs)
    return False


def _size(stats: Stats | None) -> float:
    return stats.norm if stats is not None and stats.sampled else 0.0


def _place(run: Run, layer: Op) -> tuple[Any, ...]:
    """What is one and the same layer however often it runs: the place in the code and the weights, or the part of them."""
    weights: list[Any] = []
    for value_id in layer.inputs:
        cut: list[Any] = []
        while (op := run.producer(value_id)) is not None and op.view and op.inputs:
            cut.append((op.name, repr(op.attributes), op.outputs.index(value_id)))
            value_id = op.inputs[0]
        if run.values[value_id].kind == "parameter":
            weights.append((run.values[value_id].name, *cut))
    return (layer.site, *weights)
