"""What is worked out from a run is kept with it, as long as nothing is added, and stays out of files and comparisons."""

from __future__ import annotations

from stabdiag.trace import Op, Run, SubjectFacts, Trace
from stabdiag.trace.derived import derived
from stabdiag.trace.file import dumps, loads


def op(index: int) -> Op:
    return Op(index, "relu", "forward", "", "", 0, "", None, [], [])


def test_it_is_computed_once_and_anew_when_ops_are_added() -> None:
    asked = []

    @derived
    def count(run: Run) -> int:
        asked.append(run)
        return len(run.ops)

    run = Run("float32", ops=[op(0)])
    assert [count(run), count(run), len(asked)] == [1, 1, 1]
    run.ops.append(op(1))
    assert [count(run), len(asked)] == [2, 2]


def test_each_run_has_its_own() -> None:
    @derived
    def name(run: Run) -> str:
        return run.precision

    assert [name(Run("float32")), name(Run("float16"))] == ["float32", "float16"]


def test_it_is_neither_written_nor_compared() -> None:
    @derived
    def itself(trace: Trace) -> Trace:
        return trace

    run = Run("float32", ops=[op(0)])
    run.derived["anything"] = (1, object())
    trace = Trace(SubjectFacts("net.py", "Net", 0, "", ""), runs=[run])
    assert itself(trace) is trace
    again = loads(dumps(trace))
    assert again == trace and not again.derived and not again.runs[0].derived
