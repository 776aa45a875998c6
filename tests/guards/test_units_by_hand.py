"""Guards of the rules about units: enough evidence, independent samples, another look."""

from __future__ import annotations

import pytest
import torch

from stabdiag.evidence.signal.depth import Course
from stabdiag.evidence.signal.twins import _twins
from stabdiag.evidence.signal.units import effective_samples
from stabdiag.finding import Finding, Severity
from stabdiag.rules import sd101_vanishing_gradient as vanishing
from stabdiag.rules.sd201_dead_relu import check
from stabdiag.trace import Run
from tests.guards.graph import Graph, trace


def test_positions_of_one_sample_are_not_independent() -> None:
    assert effective_samples(64, 64) == 64
    assert effective_samples(6400, 64) == 640  # a hundred positions count as ten
    assert effective_samples(32, 64) == 32


def relu(dead: int, units: int = 64, rows: int = 256, step: int = 0, batch: int = 256) -> Run:
    graph = Graph("float32", step=step)
    graph.run.values.clear()
    x = graph.leaf()
    graph.run.values[x].shape = (batch, 8)
    facts = {
        "rows": rows,
        "sampled": rows,
        "fired": [0] * dead + [rows // 2] * (units - dead),
        "steady": [0] * units,
        "sum": [-5.0 * rows] * dead + [0.0] * (units - dead),
        "sum_sq": [26.0 * rows] * dead + [1.0 * rows] * (units - dead),
    }
    return graph.ends(graph.op("relu", x, facts={"relu": facts}))


def severities(*runs: Run) -> list[Severity]:
    return [found.severity for found in check(trace(*runs))]


@pytest.mark.parametrize(("dead", "expected"), [(64, [Severity.ERROR]), (48, [Severity.ERROR]), (24, []), (0, [])])
def test_more_than_half_of_the_units_by_the_lower_bound(dead: int, expected: list[Severity]) -> None:
    assert severities(relu(dead)) == expected


def test_few_samples_and_few_units_are_no_evidence() -> None:
    assert severities(relu(64, rows=4, batch=4)) == []
    assert severities(relu(8, units=8)) == []


def test_a_finding_asks_the_other_runs() -> None:
    (found,) = check(trace(relu(64)))
    assert found.still is not None
    assert found.still(relu(64, step=2)) is Severity.ERROR
    assert found.still(relu(0, step=2)) is False and found.fades is Severity.INFO


def test_rows_that_differ_by_a_tenth_are_no_twins() -> None:
    torch.manual_seed(0)
    w, g = torch.randn(1, 8).repeat(4, 1), torch.randn(1, 8).repeat(4, 1)
    assert _twins(w.double(), g.double()) == 4
    apart = w * (1 + 0.1 * torch.arange(4.0)[:, None])
    assert _twins(apart.double(), g.double()) == 0


def course(*logs: float) -> Course:
    graph, value = Graph("float32"), 0
    for _ in logs:
        value = graph.op("mm", graph.leaf())
    return Course(tuple(graph.ends(value).ops), tuple(10.0**log for log in logs))


EVENLY = course(*(-6 + 0.5 * i for i in range(13)))
AT_THREE_PLACES = course(*[-6.0] * 4, *[-4.0] * 3, *[-2.0] * 3, *[0.0] * 3)


@pytest.mark.parametrize(
    ("found", "lost"),
    [
        (EVENLY, True),
        (course(*(-6 + 0.02 * i for i in range(300))), False),  # 0.02 decades a layer
        (course(*(-1 + 0.5 * i for i in range(3))), False),  # one decade
        (course(*[-6.0] * 6, *[0.0] * 6), False),  # at one place
    ],
)
def test_a_gradient_is_lost_in_decades_and_per_layer_and_spread_over_the_depth(found: Course, lost: bool) -> None:
    assert vanishing._lost(found, 3.5, 0.12) is lost


def findings(monkeypatch: pytest.MonkeyPatch, built: Course, other: Course) -> list[object]:
    """What SD101 says of a course as built, and whether it is still there in another run."""
    runs = {0: built, 1: other}
    monkeypatch.setattr(vanishing, "over_depth", lambda run: runs[run.seed])
    monkeypatch.setattr(vanishing, "over_time", lambda run: [])
    monkeypatch.setattr(vanishing, "_over_depth", lambda trace, course, severity: Finding(severity, ""))
    graph = Graph("float32")
    run = graph.ends(graph.op("mm", graph.leaf()))
    return [found.still(Run("float32", seed=1)) for found in vanishing.check(trace(run)) if found.still is not None]


def test_what_a_few_of_many_layers_lose_does_not_compound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert findings(monkeypatch, EVENLY, EVENLY) == [Severity.ERROR]
    assert findings(monkeypatch, AT_THREE_PLACES, EVENLY) == []


def test_two_thirds_of_the_limits_must_still_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    less, little = course(*(-2.4 + 0.2 * i for i in range(13))), course(*(-0.6 + 0.05 * i for i in range(13)))
    assert findings(monkeypatch, EVENLY, less) == [Severity.ERROR]
    assert findings(monkeypatch, EVENLY, little) == [False]
