"""What the error of a gradient costs, judged from plain numbers."""

from __future__ import annotations

import pytest

from stabdiag.evidence.numbers.descent import Outcome, descent_of
from stabdiag.trace import Run, SubjectFacts, Trace
from stabdiag.trace.experiments import DescentTried


def judged(error: float, projection: float, descent: dict[str, object] | None = None) -> Outcome:
    run = Run("bfloat16", gradient_error=error, gradient_projection=projection)
    trace = Trace(SubjectFacts("model.py", "Net", 0, "", ""), runs=[run])
    if descent is not None:
        trace.experiments.descent = DescentTried(**{"predicted": 1.0, "actual": 0.9} | descent)  # type: ignore[arg-type]
    found = descent_of(trace, run)
    assert found is not None
    return found.outcome


def test_a_small_error_needs_no_experiment() -> None:
    assert judged(0.13, 1.0) is Outcome.DESCENDS


def test_a_gradient_that_is_gone_descends_nowhere() -> None:
    assert judged(1.0, 0.0) is Outcome.LOST
    assert judged(0.8, 0.2, {"lowered": {"bfloat16": 0.2}}) is Outcome.LOST


@pytest.mark.parametrize(("lowered", "outcome"), [(0.4, Outcome.LOST), (0.6, Outcome.DESCENDS), (-1.0, Outcome.LOST)])
def test_half_of_the_descent_is_enough(lowered: float, outcome: Outcome) -> None:
    assert judged(0.8, 0.9, {"lowered": {"bfloat16": lowered}, "sampling": 2.0}) is outcome


@pytest.mark.parametrize(("sampling", "outcome"), [(0.5, Outcome.NOISY), (1.0, Outcome.DESCENDS), (None, Outcome.DESCENDS)])
def test_noise_is_measured_by_that_of_samples(sampling: float | None, outcome: Outcome) -> None:
    assert judged(0.8, 0.9, {"lowered": {"bfloat16": 0.9}, "sampling": sampling}) is outcome


def test_outputs_that_drown_in_rounding_are_noisy() -> None:
    run = Run("bfloat16", gradient_error=0.2, gradient_projection=1.0, output_error=0.8)
    found = descent_of(Trace(SubjectFacts("model.py", "Net", 0, "", ""), runs=[run]), run)
    assert found is not None and found.outcome is Outcome.NOISY and "80%" in found.told


def test_unknown_noise_is_measured_by_the_gradient_itself() -> None:
    assert judged(1.2, 0.9, {"lowered": {"bfloat16": 0.9}}) is Outcome.NOISY


@pytest.mark.parametrize("actual", [0.4, -0.2, float("-inf")])
def test_where_the_exact_gradient_does_not_descend_either_nothing_is_blamed_on_a_format(actual: float) -> None:
    assert judged(1.4, 0.1, {"actual": actual}) is Outcome.ROUGH


def test_not_compared_and_not_finite_are_no_descent() -> None:
    trace = Trace(SubjectFacts("model.py", "Net", 0, "", ""))
    assert descent_of(trace, Run("float16")) is None
    assert descent_of(trace, Run("float16", gradient_error=float("inf"), gradient_projection=0.0)) is None
