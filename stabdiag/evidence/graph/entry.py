"""Where a model's data enters its first trained layers: what the layer reads has met no other layer before."""

from __future__ import annotations

from math import prod

from stabdiag.evidence.graph.main_path import is_layer
from stabdiag.evidence.signal.depth import data_of
from stabdiag.trace import Op, Run

_TABLES = ("embedding", "_embedding_bag")
_MOVES = frozenset(
    [
        "cat",
        "stack",
        "clone",
        "_to_copy",
        "index",
        "index_select",
        "gather",
        "constant_pad_nd",
        "native_dropout",
        "copy",
        "flip",
    ]
)


def is_entry(run: Run, op: Op) -> bool:
    """Whether a layer op reads model inputs that went through no layer, table or other trained weight on the way."""
    return op.name not in _TABLES and bool(op.inputs) and is_layer(run, op) and bool(inputs_before(run, op))


def inputs_before(run: Run, op: Op) -> list[str]:
    """Names of the model inputs that a layer op reads directly or through plain arithmetic; empty when a layer lies between."""
    return way_of_data(run, op)[0]


def way_of_data(run: Run, op: Op) -> tuple[list[str], bool]:
    """As `inputs_before`, and whether the features are those that were declared: moved, selected, put side by side, or all
    multiplied and shifted by one number, and nothing else was computed with them."""
    names: list[str] = []
    declared = True
    stack, seen = [data_of(run, op)], set()
    while stack:
        value_id = stack.pop()
        if value_id in seen:
            continue
        seen.add(value_id)
        value = run.values[value_id]
        if value.kind == "input":
            names.append(value.name)
        made_by = run.producer(value_id)
        if made_by is None:
            continue
        if made_by.name in _TABLES or is_layer(run, made_by):
            return [], False
        declared = declared and _keeps_features(run, made_by)
        stack.extend(made_by.inputs)
    return names, declared


def _keeps_features(run: Run, op: Op) -> bool:
    if op.name in ("add", "sub", "mul", "div"):
        return sum(prod(run.values[i].shape) > 1 for i in op.inputs) == 1
    return op.view or op.name in _MOVES
