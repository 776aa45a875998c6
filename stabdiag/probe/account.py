"""What running expressions again costs, counted before anything runs."""

from __future__ import annotations

from collections.abc import Iterable

from stabdiag.evidence.expressions.forms import Expression
from stabdiag.trace import Op, Run

BUDGET = 50.0  # forward passes
_CALL = 10_000  # what calling an op costs, in multiply-adds: 5 µs at some 2 per ns on one CPU core


class Account:
    """Counted work, so that two scans of the same model spend alike: multiply-adds and a constant per op."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.forward = sum(self.of(op) for op in run.phase("forward", "loss")) or 1.0
        self.spent = 0.0

    def of(self, op: Op, lanes: int = 1) -> float:
        """The work of one op on `lanes` variations at once."""
        elements = sum(_size(self.run.values[i].shape) for i in op.outputs[:1])
        return 0.0 if op.view else _CALL + lanes * elements * _inner(op, self.run)

    def variation(self, expression: Expression, lanes: int, differentiated: bool | None) -> float:
        """The work of variations; backward counts twice forward. `differentiated`: whether the operand alone is computed, with
        or without its gradient; None for all of the expression."""
        before = sum(self.of(self.run.ops[i], lanes) for i in expression.upstream.ops)
        if differentiated is not None:
            return before * (3 if differentiated else 1)
        after = sum(self.of(self.run.ops[i], lanes) for i in expression.path)
        return (before + after) * (3 if expression.differentiated else 1)

    def elements(self, expression: Expression) -> int:
        """Elements of all values of an expression, from its sources to its end."""
        made = (o for i in (*expression.upstream.ops, *expression.path) for o in self.run.ops[i].outputs)
        return sum(_size(self.run.values[i].shape) for i in {*expression.upstream.sources, *made}) or 1

    def affords(self, work: float) -> bool:
        """Whether the budget still holds it; then it is spent."""
        if self.spent + work > BUDGET * self.forward:
            return False
        self.spent += work
        return True

    def spend(self, work: float) -> None:
        """Spend from the budget; raises OverBudgetError where it does not hold so much."""
        if not self.affords(work):
            raise OverBudgetError


class OverBudgetError(Exception):
    """The budget does not hold what was to be spent."""


def _size(shape: Iterable[int]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _inner(op: Op, run: Run) -> int:
    """Multiply-adds per element of the result."""
    shapes = [run.values[i].shape for i in op.inputs]
    if op.name in ("mm", "bmm", "addmm", "baddbmm") and len(shapes) >= 2:
        return shapes[-2][-1]
    if "convolution" in op.name and len(shapes) >= 2:
        return max(1, _size(shapes[1]) // max(1, shapes[1][0]))
    return 1
