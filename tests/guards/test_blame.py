"""At which op an error is made: chains of errors and condition numbers, by hand."""

from __future__ import annotations

from typing import Any

from stabdiag.evidence.numbers.blame import LIMIT, blame
from stabdiag.trace import Run, Trace
from stabdiag.trace.experiments import Conditioning, Experiments
from tests.guards.graph import Graph, trace

U = 2.0**-8  # unit roundoff of bfloat16


def chain(precision: str, *errors: float | None, names: tuple[str, ...] = (), **fields: Any) -> Run:
    graph = Graph(precision, **fields)
    value = graph.leaf()
    for at, error in enumerate(errors):
        value = graph.op(names[at] if names else "tanh", value, error=error)
    run = graph.ends(value)
    run.output_error = errors[-1]
    return run


def judged(errors: list[float | None], conditions: list[float], **fields: Any) -> tuple[Trace, Run]:
    low = chain("bfloat16", *errors, **fields)
    known = Conditioning(output=conditions[-1], ops=dict(enumerate(conditions)))
    return trace(chain("float64", *[None] * len(errors)), low, conditioning={"bfloat16": known}), low


def test_the_walk_goes_back_to_where_the_index_jumps() -> None:
    of, run = judged([U, 100 * U, 100 * U, 100 * U], [1, 1, 1, 1])
    found = blame(of, run, LIMIT)
    assert found is not None and found.op.index == 1 and found.inherited == U


def test_the_walk_goes_back_however_far() -> None:
    errors = [U, 100 * U, *[100 * U] * 400]
    found = blame(*judged(errors, [1.0] * len(errors)), LIMIT)
    assert found is not None and found.op.index == 1


def test_what_the_condition_number_explains_is_nobodys_fault() -> None:
    assert blame(*judged([U, 100 * U, 100 * U], [1, 100, 100]), LIMIT) is None


def test_a_perturbation_that_cancels_by_chance_does_not_hide_the_condition_before_it() -> None:
    assert blame(*judged([U, 100 * U, 100 * U], [1, 100, 1]), LIMIT) is None


def test_code_that_asks_for_the_dtype_is_no_rounding() -> None:
    of, run = judged([U, 20 * U, 20 * U], [1, 1, 1])
    assert blame(of, run, LIMIT) is not None
    narrower = chain("float8_e4m3fn", U, U, U)
    of.runs.append(narrower)
    assert blame(of, run, LIMIT) is None


def test_a_choice_that_fell_differently_is_no_rounding() -> None:
    graphs = []
    for precision, error in (("float64", None), ("bfloat16", 100 * U)):
        graph = Graph(precision)
        x = graph.op("mm", graph.leaf(), error=error and U)
        chosen = graph.op("argmax", x, dtype="int64", largest=None, error=error and 0.5)
        run = graph.ends(graph.op("index_select", x, chosen, error=error))
        run.output_error = error
        graphs.append(run)
    of = trace(*graphs, conditioning={"bfloat16": Conditioning(1.0, {0: 1.0, 1: 1.0, 2: 1.0})})
    assert blame(of, graphs[1], LIMIT) is None
    graphs[1].values[2].error = 0.0
    found = blame(of, graphs[1], LIMIT)
    assert found is not None and found.op.name == "index_select"


def test_what_was_not_measured_is_not_blamed() -> None:
    of, run = judged([U, 100 * U], [1, 1])
    of.experiments = Experiments()
    assert blame(of, run, LIMIT) is None
