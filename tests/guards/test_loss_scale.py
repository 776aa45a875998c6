"""The loss scale that a run recommends."""

from __future__ import annotations

import pytest

from stabdiag.evidence.numbers.loss_scale import recommended_scale, safe_scale
from stabdiag.trace import Run
from stabdiag.trace.formats import format_of
from tests.guards.graph import Graph, stats, trace


def run(gradient: float) -> Run:
    graph = Graph("float32")
    value = graph.op("mm", graph.leaf())
    graph.run.values[value].gradient = stats(gradient)
    return graph.ends(value)


@pytest.mark.parametrize(("gradient", "scale"), [(1.0, 2.0**12), (2.0**-10, 2.0**22), (2.0**-30, 2.0**24), (1e4, 1.0)])
def test_the_largest_gradient_stays_a_factor_8_below_the_maximum(gradient: float, scale: float) -> None:
    assert safe_scale(run(gradient), format_of("float16")) == scale
    assert gradient * scale <= format_of("float16").max / 8 or scale == 1.0


def test_only_float16_needs_one() -> None:
    of = trace(run(2.0**-10))
    assert recommended_scale(of, "bfloat16") == recommended_scale(of, "float32") == 1.0
    assert recommended_scale(of, "amp-float16") == 2.0**22


def test_a_float16_loss_starts_its_gradient_within_float16() -> None:
    assert recommended_scale(trace(run(2.0**-20)), "float16") == 2.0**15
