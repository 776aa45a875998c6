"""Which ops of a reference run would overflow a format, and which would not although they are large."""

from __future__ import annotations

from stabdiag.evidence.numbers.prediction import overflows
from stabdiag.trace import Run
from tests.guards.graph import Graph, stats


def names(run: Run, precision: str = "float16") -> list[str]:
    return [op.name for op, _ in overflows(run, precision)]


def large(name: str, consumer: str = "mm", live: bool = True, before: float = 1.0) -> Run:
    graph = Graph()
    value = graph.op(name, graph.op("mul", graph.leaf(), largest=before), largest=1e6)
    read = graph.op(consumer, value)
    return graph.ends(read if live else graph.op("neg", graph.leaf()))


def test_a_result_beyond_the_format_whose_input_fits() -> None:
    assert names(large("mm")) == ["mm"]
    assert names(large("mm"), "bfloat16") == []


def test_what_its_input_had_already_is_reported_once() -> None:
    assert names(large("neg", before=1e6)) == ["mul"]


def test_a_constant_that_the_author_writes_is_the_business_of_another_rule() -> None:
    assert names(large("masked_fill")) == []


def test_what_reaches_no_loss_is_no_matter() -> None:
    assert names(large("mm", live=False)) == []


def test_a_consumer_with_a_bound_absorbs_an_infinity() -> None:
    assert names(large("mm", consumer="tanh")) == []
    assert names(large("mm", consumer="exp")) == ["mm"]


def test_under_autocast_some_ops_stay_in_float32() -> None:
    assert names(large("exp"), "amp-float16") == []
    graph = Graph()
    x = graph.leaf()
    wide = graph.op("mm", x, x, largest=stats(1e6))
    run = graph.ends(graph.op("mul", wide))
    assert names(run, "amp-float16") == ["mm"]
    kept = Graph()
    x = kept.leaf()
    run = kept.ends(kept.op("mul", kept.op("exp", kept.op("mm", x, x), largest=1e6)))
    assert names(run, "amp-float16") == []
