"""The forms of unstable expressions, found in a recorded run by value flow.

Every op that has a singular point or a limited range (logarithm, quotient, root, exponential, arc cosine) on data is a
candidate; what its operand is made of decides which form it is. Whether it can in fact be driven to that point is not decided
here but by pushing it there (`stabdiag/probe/experiments/confirmation.py`): a guard (a shift by the maximum, a clamp, an
epsilon that is not absorbed) needs no recognising, because what it guards does not break.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isfinite

from stabdiag.evidence.expressions.flow import SUMS, Flow, Slice, base_name, flow
from stabdiag.trace import Op, Run
from stabdiag.trace.derived import derived

LOG_OF_SOFTMAX = "log-of-softmax"
LOG_OF_SIGMOID = "log-of-sigmoid"
SOFTMAX_BY_HAND = "softmax-by-hand"
LOGSUMEXP_BY_HAND = "logsumexp-by-hand"
SOFTPLUS_BY_HAND = "softplus-by-hand"
SIGMOID_BY_HAND = "sigmoid-by-hand"
LATE_CLAMP = "clamp-after-exp"
EXP = "exp"
ROOT_OF_EXP = "root-of-exp"
ROOT = "root"
INVERSE_TRIGONOMETRIC = "inverse-trigonometric"
LOGARITHM = "logarithm"
QUOTIENT = "quotient"
POWER = "power"

REPLACEABLE = frozenset((LOG_OF_SOFTMAX, LOG_OF_SIGMOID, SOFTMAX_BY_HAND, LOGSUMEXP_BY_HAND, SOFTPLUS_BY_HAND, ROOT_OF_EXP))
"""Forms that have a stable form with the same value: nothing speaks for writing them."""

GENERAL = frozenset((ROOT, INVERSE_TRIGONOMETRIC, LOGARITHM, QUOTIENT, POWER))
"""Functions of whatever value: only how near their singular point is speaks against them."""

_LOGS = frozenset(["log", "log2", "log10", "log1p"])
_EXPS = frozenset(["exp", "exp2", "expm1", "sinh", "cosh"])
_INVERSES = frozenset(["acos", "asin", "acosh", "atanh", "logit", "special_logit", "erfinv"])
_QUOTIENTS = frozenset(["reciprocal", "rsqrt"])
_SOFTMAXES = frozenset(["_softmax", "_safe_softmax"])
_SELECTIONS = frozenset(["where", "masked_fill"])
_TRAP_LENGTH = 6  # ops between a singular op and the where that hides its result


@dataclass(frozen=True)
class Expression:
    """One unstable expression at one place.

    Attributes:
        form: one of the names above.
        op: index of the op that is reported.
        danger: index of the op that breaks first; operand: id of the value that breaks it.
        link: id of the value in whose terms the limit is told (the logits, not the probabilities).
        gap_dim: the dimension along which the spread of `link` counts; None where its extremes do.
        path: the ops from the operand to the end of the expression, where the result is judged.
        upstream: what makes the operand.
        cause: index of the op that makes the operand dangerous (the softmax, the exp), None where it is a raw value.
        selected: index of the where or masked_fill that all uses of the result lead to, None without one.
        differentiated: autograd went through it.
    """

    form: str
    op: int
    danger: int
    operand: int
    link: int
    gap_dim: int | None
    path: tuple[int, ...]
    upstream: Slice
    cause: int | None = None
    selected: int | None = None
    differentiated: bool = True

    @property
    def key(self) -> str:
        """Its name in the results of the confirmation."""
        return f"{self.form}@{self.op}"


@derived
def expressions(run: Run) -> list[Expression]:
    """Every candidate in a run, one per line of code: of several calls, layers and time steps the one with the widest range."""
    return _one_per_place(run, list(_Finder(run).all()))


def _one_per_place(run: Run, found: list[Expression]) -> list[Expression]:
    """Calls fed by another call of their line (a recursion over time) break where that one does: it stands for them."""
    places: dict[object, list[Expression]] = {}
    for expression in found:
        at = run.ops[expression.op].location
        places.setdefault((expression.form, at and (at.path, at.line, at.column, at.library)), []).append(expression)
    best = []
    for calls in places.values():
        dangers = {call.danger for call in calls}
        first = [call for call in calls if not dangers & (set(call.upstream.ops) - {call.danger})] or calls
        best.append(max(first, key=lambda call: _reach(run, call)))
    return best


def _reach(run: Run, expression: Expression) -> float:
    stats = run.values[expression.link].stats
    return stats.max_abs if stats is not None and isfinite(stats.max_abs) else 0.0


class _Finder:
    """Sorts the dangerous ops of one run into forms."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.flow: Flow = flow(run)
        self.claimed: set[int] = set()

    def all(self) -> Iterator[Expression]:
        """Exponentials come last: those that a larger form owns are reported with it."""
        ops = [op for op in self.run.phase("forward", "loss") if op.location is not None and op.inputs and op.outputs]
        candidates = [self._judge(op) for op in ops if not is_exp(op)]
        candidates += [self._exponential(op) for op in ops if is_exp(op) and op.index not in self.claimed]
        for expression in candidates:
            if expression is not None:
                yield self._with_selection(expression)

    def _judge(self, op: Op) -> Expression | None:
        name = base_name(op)
        if name in _LOGS:
            return self._logarithm(op)
        if name == "div" and len(op.inputs) == 2:
            return self._quotient(op, op.inputs[1])
        if name in _QUOTIENTS:
            return self._quotient(op, op.inputs[0])
        if name == "sqrt" or (name == "pow" and 0 < _exponent(op) < 1):
            return self._root(op)
        if name == "pow" and not _harmless_exponent(op):
            return self._made(POWER, op, op, op.inputs[0])
        if name in _INVERSES:
            return self._made(INVERSE_TRIGONOMETRIC, op, op, op.inputs[0])
        return None

    # -- forms --------------------------------------------------------------------------------------------------------------

    def _logarithm(self, op: Op) -> Expression | None:
        operand = op.inputs[0]
        if not self.flow.data(operand):
            return None
        ways = self.flow.roots(operand)
        roots = [self.run.ops[i] for i in ways]
        exps = [root for root in roots if is_exp(root) and "mixture" not in ways[root.index]]
        if exps:
            way = frozenset[str]().union(*(ways[e.index] for e in exps))
            plain = not way & {"product", "neg", "rsub", "sub"}
            if plain and way & SUMS:
                return self._overflowing(LOGSUMEXP_BY_HAND, op, exps)
            rate = base_name(op) == "log1p" and "mul" in way  # log1p(c · exp(z)): the exp is a quantity of its own
            if plain and not rate and (way & {"add"} or base_name(op) == "log1p" or base_name(exps[0]) == "cosh"):
                return self._overflowing(SOFTPLUS_BY_HAND, op, exps)
            return self._made(LOGARITHM, op, op, operand, link=exps[0].inputs[0], cause=exps[0])
        mixed = [root for root in roots if "mixture" in ways[root.index]]
        if not all(self._probability(root) for root in mixed):
            return self._made(LOGARITHM, op, op, operand)
        for root in roots:
            if base_name(root) == "div" and len(root.inputs) == 2 and (found := self._log_of_ratio(op, root)) is not None:
                return found
            if root.name in _SOFTMAXES:
                dim = int(root.attributes.get("dim", -1))
                return self._made(LOG_OF_SOFTMAX, op, op, operand, link=root.inputs[0], cause=root, gap_dim=dim)
            if (exp := self._softmax_by_hand(root)) is not None:
                return self._made(LOG_OF_SOFTMAX, op, op, operand, link=exp.inputs[0], cause=root)
            if base_name(root) == "sigmoid":
                return self._made(LOG_OF_SIGMOID, op, op, operand, link=root.inputs[0], cause=root)
            if (exp := self._sigmoid_by_hand(root)) is not None:
                return self._made(LOG_OF_SIGMOID, op, op, operand, link=exp.inputs[0], cause=root)
        return self._made(LOGARITHM, op, op, operand)

    def _log_of_ratio(self, op: Op, ratio: Op) -> Expression | None:
        """log(p / m) with a softmax above or below: the ratio ends where p does."""
        for part in ratio.inputs:
            softmaxes = [r for i in self.flow.roots(part) if (r := self.run.ops[i]).name in _SOFTMAXES]
            if softmaxes:
                (root, *_), dim = softmaxes, int(softmaxes[0].attributes.get("dim", -1))
                return self._made(LOG_OF_SOFTMAX, op, ratio, part, link=root.inputs[0], cause=root, end=op, gap_dim=dim)
        return None

    def _probability(self, op: Op) -> bool:
        return op.name in _SOFTMAXES or base_name(op) == "sigmoid"

    def _quotient(self, op: Op, operand: int) -> Expression | None:
        if not self.flow.data(operand):
            return None
        if (exp := self._softmax_by_hand(op)) is not None:
            self.claimed.update(e.index for e in self._exps(operand))
            return self._made(SOFTMAX_BY_HAND, exp, exp, exp.inputs[0], cause=op, end=op)
        if (exp := self._sigmoid_by_hand(op)) is not None:
            self.claimed.add(exp.index)
            return self._made(SIGMOID_BY_HAND, exp, exp, exp.inputs[0], cause=op, end=op)
        if self._exps(operand):  # a variance exp(v): it ends where the exp does
            return None
        return self._made(QUOTIENT, op, op, operand)

    def _root(self, op: Op) -> Expression | None:
        operand = op.inputs[0]
        if not self.flow.data(operand):
            return None
        exps = self._exps(operand)
        if exps and "product" not in self.flow.roots(operand)[exps[0].index]:
            return self._overflowing(ROOT_OF_EXP, op, exps)
        return self._made(ROOT, op, op, operand)

    def _exponential(self, op: Op) -> Expression | None:
        uses = [use for value in op.outputs for use in self.flow.uses(value)]
        if len(uses) == 1 and _bounds_above(uses[0]):  # a policy's ratio is clamped and used as it is: that is no guard
            return self._made(LATE_CLAMP, op, op, op.inputs[0], cause=uses[0], end=uses[0])
        return self._made(EXP, op, op, op.inputs[0])

    def _overflowing(self, form: str, op: Op, exps: list[Op]) -> Expression | None:
        self.claimed.update(e.index for e in exps)
        return self._made(form, op, exps[0], exps[0].inputs[0], cause=exps[0], end=op)

    def _exps(self, value_id: int) -> list[Op]:
        ways = self.flow.roots(value_id)
        return [op for i in ways if is_exp(op := self.run.ops[i]) and "mixture" not in ways[i]]

    def _softmax_by_hand(self, op: Op) -> Op | None:
        """The exp in the denominator of exp(z)/Σexp(z), whatever stands above it."""
        if base_name(op) != "div" or len(op.inputs) != 2:
            return None
        below = self.flow.roots(op.inputs[1])
        exps = [e for i in below if is_exp(e := self.run.ops[i]) and not below[i] & {"product", "mixture"}]
        if not exps:
            return None
        summed = any(below[e.index] & SUMS for e in exps)
        return exps[0] if summed or self._exps(op.inputs[0]) else None

    def _sigmoid_by_hand(self, op: Op) -> Op | None:
        """The exp in 1/(1 + exp(-z))."""
        name = base_name(op)
        if name not in ("reciprocal", "div"):
            return None
        below = op.inputs[-1]
        added = self.flow.maker(below)
        exps = self._exps(below) if added is not None and base_name(added) == "add" else []
        return exps[0] if len(exps) == 1 else None

    # -- making one ---------------------------------------------------------------------------------------------------------

    def _made(
        self,
        form: str,
        op: Op,
        danger: Op,
        operand: int,
        *,
        link: int | None = None,
        cause: Op | None = None,
        end: Op | None = None,
        gap_dim: int | None = None,
    ) -> Expression | None:
        upstream = self.flow.slice(operand) if self.flow.data(operand) else None
        if upstream is None or not upstream.sources:
            return None
        path = self.flow.between(upstream, danger if end is None else end)
        return Expression(
            form,
            op.index,
            danger.index,
            operand,
            operand if link is None else link,
            gap_dim,
            path,
            upstream,
            None if cause is None else cause.index,
            differentiated=danger.index in self.flow.differentiated and all(self.run.ops[i].recording for i in path),
        )

    def _with_selection(self, expression: Expression) -> Expression:
        """Judge behind the where or masked_fill that every use of the result leads to: it may hide what breaks."""
        end = self.run.ops[expression.path[-1]]
        selection = self._selection(end, _TRAP_LENGTH)
        if selection is None:
            return expression
        path = self.flow.between(expression.upstream, selection)
        return replace(expression, path=path, selected=selection.index)

    def _selection(self, op: Op, steps: int) -> Op | None:
        uses = [use for value in op.outputs[:1] for use in self.flow.uses(value)]
        if steps == 0 or not uses:
            return None
        found = [u if base_name(u) in _SELECTIONS else self._selection(u, steps - 1) for u in uses]
        return found[0] if all(f is found[0] for f in found) else None


def is_exp(op: Op) -> bool:
    """Whether an op overflows the way exp does: exp, exp2, expm1, sinh, cosh, a constant to a varying power."""
    return base_name(op) in _EXPS or (base_name(op) == "pow" and "self" in op.attributes)


def _exponent(op: Op) -> float:
    exponent = op.attributes.get("exponent")
    return float(exponent) if isinstance(exponent, (int, float)) else float("nan")


def _harmless_exponent(op: Op) -> bool:
    exponent = _exponent(op)
    return exponent >= 1 and exponent == int(exponent)


def _bounds_above(op: Op) -> bool:
    name = base_name(op)
    return name in ("clamp_max", "minimum") or (
        name in ("clamp", "hardtanh") and ("max" in op.attributes or len(op.inputs) > 2)
    )
