"""Which runs are asked whether a finding is still there, and what their answers come to."""

from __future__ import annotations

import pytest

from stabdiag.finding import Finding, Severity
from stabdiag.judging.persistence import persistent, rechecks
from stabdiag.trace import Run, SubjectFacts, Trace

ERROR, WARNING, INFO, GONE, UNKNOWN = Severity.ERROR, Severity.WARNING, Severity.INFO, False, None
Answers = dict[tuple[int, int], object]


def trace(*runs: Run) -> Trace:
    return Trace(SubjectFacts("net.py", "Net", 0, "", ""), runs=[Run("float64"), Run("float32"), Run("float16"), *runs])


def judged(answers: Answers, fades: Severity | None = None) -> list[Severity]:
    finding = Finding(ERROR, "", still=lambda run: answers[run.seed, run.step], fades=fades)  # type: ignore
    runs = [Run("float32", seed=seed, step=step) for seed, step in answers]
    return [found.severity for found in persistent([finding], trace(*runs))]


def test_asked_are_other_seeds_and_the_first_steps_in_float32() -> None:
    later, seed = Run("float32", step=2), Run("float32", seed=1)
    others = [
        Run("float32", step=300),
        Run("float16", step=2),
        Run("float32", seed=2, error="it broke"),
        Run("float64", seed=1),
    ]
    assert rechecks(trace(later, seed, *others)) == [later, seed]
    assert rechecks(trace()) == []


@pytest.mark.parametrize(
    ("answers", "severities"),
    [
        ({}, [ERROR]),
        ({(0, 2): ERROR}, [ERROR]),
        ({(0, 2): WARNING, (1, 0): ERROR}, [WARNING]),  # as where it is mildest
        ({(0, 2): GONE}, []),  # training mends it
        ({(1, 0): GONE, (2, 0): ERROR, (0, 2): ERROR}, []),  # an accident of the seed
        ({(1, 0): UNKNOWN}, [ERROR]),
        ({(1, 0): UNKNOWN, (0, 2): GONE}, []),
        ({(1, 0): UNKNOWN, (0, 2): INFO}, [INFO]),
    ],
)
def test_it_must_be_there_in_every_run_that_can_tell(answers: Answers, severities: list[Severity]) -> None:
    assert judged(answers) == severities


def test_what_fades_is_lowered_where_the_rule_has_something_to_say() -> None:
    assert judged({(0, 2): GONE}, INFO) == [INFO]
    assert judged({(0, 2): WARNING}, INFO) == [WARNING]


def test_another_run_makes_nothing_worse() -> None:
    mild = Finding(WARNING, "", still=lambda run: ERROR)
    assert [f.severity for f in persistent([mild], trace(Run("float32", seed=1)))] == [WARNING]


def test_a_fact_of_this_run_is_not_asked_about() -> None:
    assert [f.severity for f in persistent([Finding(ERROR, "")], trace(Run("float32", seed=1)))] == [ERROR]
