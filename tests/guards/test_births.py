"""Where non-finite values come from, whose fault it is, and what heals them."""

from __future__ import annotations

from stabdiag.evidence.numbers.poison import births
from tests.guards.graph import Graph, stats

INFINITE, MINUS_INFINITE, NAN = stats(posinf=3), stats(neginf=3), stats(nan=3)


def test_the_first_op_with_finite_inputs_is_the_birth_and_the_rest_are_victims() -> None:
    graph = Graph()
    value = graph.op("exp", graph.leaf(), largest=INFINITE)
    last = graph.op("log", graph.op("sub", value, value, largest=NAN), largest=NAN)
    (birth,) = births(graph.ends(last))
    assert birth.op.name == "exp" and birth.became_nan is not None and birth.became_nan.name == "sub"
    assert birth.victims == [1, 2] and "loss" in birth.reaches


def test_a_written_infinity_is_intended_and_a_softmax_heals_it() -> None:
    graph = Graph()
    masked = graph.op("masked_fill", graph.leaf(), largest=MINUS_INFINITE)
    (birth,) = births(graph.ends(graph.op("_softmax", masked)))
    assert birth.intended and birth.healed == [1] and birth.reaches == []


def test_nan_made_of_an_intended_infinity_is_born_where_it_is_made() -> None:
    graph = Graph()
    masked = graph.op("masked_fill", graph.leaf(), largest=MINUS_INFINITE)
    wrong = graph.op("mul", masked, graph.leaf(name="p"), largest=NAN)
    found = births(graph.ends(wrong))
    assert [(b.op.name, b.intended) for b in found] == [("masked_fill", True), ("mul", False)]


def test_a_leaf_that_is_broken_is_to_blame_and_not_the_op_that_reads_it() -> None:
    graph = Graph()
    value = graph.op("mm", graph.leaf(largest=NAN), largest=NAN)
    (birth,) = births(graph.ends(value))
    assert birth.leaf == 0
