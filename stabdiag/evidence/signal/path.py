"""The one way through a recorded run along which signals are judged over depth.

From the loss backwards: at every op to the input that carries most of the gradient. What is added, stacked or concatenated gets
one and the same gradient, so there the largest term is the one: the stream of a residual network, the last layer of a dense one
whose signal grows. What has no gradient to carry (a mask, an adjacency matrix, weights) is not followed while anything else is
there. Places in the code that the way passes again and again with the same weights are time, not depth: the last pass stands
for them.
"""

from __future__ import annotations

from typing import Any

from stabdiag.evidence.graph.main_path import Station, is_layer
from stabdiag.evidence.signal.depth import gradient_of
from stabdiag.trace import Op, Run, Stats, Value

EQUAL = 1.01  # ratio of gradients that tells nothing: their norms are estimated from samples


def signal_path(run: Run) -> list[Station]:
    """The stations of the way, from the data to the loss: the value behind every trained layer, or behind every addition that
    layers off the way feed. Empty when the run broke before its loss."""
    way = _way(run)
    layers = [op for op in run.phase("forward", "loss") if is_layer(run, op)]
    seen: set[tuple[Any, ...]] = set()
    stations: list[Station] = []
    for op, before in zip(way[::-1], [*way[-2::-1], None], strict=True):
        first = 0 if before is None else before.index + 1
        passed = {_place(run, layer): layer.layer for layer in layers if first <= layer.index <= op.index}
        new = passed.keys() - seen
        if new and not op.view:
            seen |= new
            stations.append(Station(op, run.values[op.outputs[0]], 0, tuple(passed[place] for place in passed if place in new)))
    return [Station(s.op, s.value, depth, s.layers) for depth, s in enumerate(stations[::-1])]


def _way(run: Run) -> list[Op]:
    """The ops of the way in order of execution."""
    op = None if run.loss_value is None else run.producer(run.loss_value)
    fed = _fed(run)
    way: list[Op] = []
    while op is not None:
        way.append(op)
        signals = [i for i in op.inputs if _is_signal(run, i, fed)] if op.name != "detach" else []
        op = run.producer(_heaviest(run, signals)) if signals else None
    return way[::-1]


def _is_signal(run: Run, value_id: int, fed: set[int]) -> bool:
    made = run.values[value_id].op
    return made is not None and run.ops[made].phase in ("forward", "loss") and made in fed


def _heaviest(run: Run, value_ids: list[int]) -> int:
    """The value with the largest gradient; among those whose gradients are equal, the terms of a sum, the one with the largest
    signal."""
    gradients = {i: 0.0 if (g := gradient_of(run, i)) is None or not g.sampled else g.norm for i in value_ids}
    most = max(gradients.values())
    equal = [i for i, norm in gradients.items() if norm >= most / EQUAL]
    return max(equal, key=lambda i: _size(run.values[run.behind_views(i)].stats))


def _size(stats: Stats | None) -> float:
    return stats.norm if stats is not None and stats.sampled else 0.0


def _fed(run: Run) -> set[int]:
    """The ops whose results depend on an input of the model; all of them where none does."""
    fed: set[int] = set()
    for op in run.phase("forward", "loss"):
        if any(_data(value) or value.op in fed for value in run.inputs_of(op)):
            fed.add(op.index)
    return fed or {op.index for op in run.phase("forward", "loss")}


def _data(value: Value) -> bool:
    return value.kind == "input"


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
