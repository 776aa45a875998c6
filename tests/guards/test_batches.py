"""What further batches add to a run."""

from __future__ import annotations

import pytest

from stabdiag.probe.merge import merge
from stabdiag.trace import Run
from tests.guards.graph import Graph, stats


def batch(fact: int, error: str | None = None, gradient: float | None = 2.0) -> Run:
    graph = Graph("float32", error=error)
    x = graph.leaf()
    value = graph.op("relu", x, facts={"relu": {"fired": [fact, 1]}})
    graph.run.values[value].gradient = stats(1.0)
    graph.parameter("w", gradient)
    return graph.ends(value)


def test_statistics_facts_and_gradients_add() -> None:
    into = batch(3)
    merge(into, batch(4))
    value = into.values[into.ops[0].outputs[0]]
    assert into.batches == 2
    assert value.stats is not None and value.stats.count == 128
    assert value.gradient is not None and value.gradient.count == 128
    assert into.ops[0].facts["relu"]["fired"] == [7, 2]
    assert into.parameters[0].gradient is not None and into.parameters[0].gradient.count == 128


def test_a_fact_that_only_the_second_batch_has_is_kept() -> None:
    into, more = batch(3), batch(4)
    into.ops[0].facts.clear()
    merge(into, more)
    assert into.ops[0].facts["relu"]["fired"] == [4, 1]


def test_a_batch_that_broke_adds_nothing() -> None:
    into = batch(3)
    merge(into, batch(4, error="ValueError: no"))
    assert into.batches == 1 and into.ops[0].facts["relu"]["fired"] == [3, 1]


@pytest.mark.parametrize(("mine", "theirs", "count"), [(None, 2.0, 64), (2.0, None, 64), (None, None, None)])
def test_a_missing_gradient_is_missing_and_not_zero(mine: float | None, theirs: float | None, count: int | None) -> None:
    into = batch(1, gradient=mine)
    merge(into, batch(1, gradient=theirs))
    found = into.parameters[0].gradient
    assert (found.count if found is not None else None) == count
