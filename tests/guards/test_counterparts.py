"""The same op in two runs: by place and call, never by position."""

from __future__ import annotations

from stabdiag.trace.counterpart import Counterparts
from tests.guards.graph import Graph


def test_calls_of_one_place_are_told_apart_by_their_occurrence() -> None:
    runs = []
    for precision in ("float32", "float64"):
        graph = Graph(precision)
        value = graph.leaf()
        for _ in range(3):
            value = graph.op("tanh", value, line=7)
        runs.append(graph.ends(value))
    there = Counterparts(*runs)
    assert [there.op(op).index for op in runs[0].ops] == [0, 1, 2]  # type: ignore[union-attr]


def test_an_op_in_between_shifts_nothing() -> None:
    one, other = Graph("float32"), Graph("float64")
    first = one.ends(one.op("tanh", one.leaf(), line=7))
    second = other.ends(other.op("tanh", other.op("_to_copy", other.leaf(), line=3), line=7))
    assert Counterparts(first, second).op(first.ops[0]) is second.ops[1]


def test_another_shape_is_another_value() -> None:
    one, other = Graph("float32"), Graph("float64")
    first = one.ends(one.op("mm", one.leaf(), line=7, shape=(4, 2)))
    second = other.ends(other.op("mm", other.leaf(), line=7, shape=(2, 4)))
    assert Counterparts(first, second).value(first, first.outputs[0]) is None
