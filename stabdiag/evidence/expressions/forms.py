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

from stabdiag.trace import Op, Run
from stabdiag.trace.dependence import Dependence, Slice, dependence
from stabdiag.trace.derived import derived
from stabdiag.trace.ops import EVEN, EXPONENTIALS, INVERSES, LOGARITHMS, RECIPROCALS, SELECTIONS, SOFTMAXES, SUMS, exponent

LOG_OF_SOFTMAX = "log-of-softmax"
LOG_OF_SIGMOID = "log-of-sigmoid"
SOFTMAX_BY_HAND = "softmax-by-hand"
LOGSUMEXP_BY_HAND = "logsumexp-by-hand"
SOFTPLUS_BY_HAND = "softplus-by-hand"
SIGMOID_BY_HAND = "sigmoid-by-hand"
LATE_CLAMP = "clamp-after-exp"
EXP = "exp"
RATIO = "importance-ratio"
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

_TRAP_LENGTH = 6  # ops between a singular op and the where that hides its result


@dataclass(frozen=True)
class Expression:
    """One unstable expression at one place.

    Attributes:
        form: one of the names above.
        op: index of the op that is reported.
        danger: index of the op that breaks first; operand: id of the value that breaks it.
        link: id of the value in whose terms the limit is stated (the logits, not the probabilities).
        signed: id of the value that passes through the singular point where the operand can only touch it (|u|, u²); else the
            operand.
        gap_dim: the dimension along which the spread of `link` counts; None where its extremes do.
        path: the ops from the operand to the end of the expression, where the result is judged.
        upstream: what makes the operand.
        cause: index of the op that makes the operand dangerous (the softmax, the exp), None where it is a raw value.
        selected: index of the where or masked_fill that all uses of the result lead to, None without one.
        complement: the operand is 1 minus what `cause` makes.
        differentiated: autograd went through it.
        calls: how often the line computes it: in other calls, layers, time steps.
    """

    form: str
    op: int
    danger: int
    operand: int
    link: int
    signed: int
    gap_dim: int | None
    path: tuple[int, ...]
    upstream: Slice
    cause: int | None = None
    selected: int | None = None
    complement: bool = False
    differentiated: bool = True
    calls: int = 1

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
        best.append(replace(max(first, key=lambda call: _reach(run, call)), calls=len(calls)))
    return best


def _reach(run: Run, expression: Expression) -> float:
    stats = run.values[expression.link].stats
    return stats.max_abs if stats is not None and isfinite(stats.max_abs) else 0.0


class _Finder:
    """Sorts the dangerous ops of one run into forms."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.flow: Dependence = dependence(run)
        self.claimed: set[int] = set()

    def all(self) -> Iterator[Expression]:
        """Exponentials come last: those that a larger form owns are reported with it."""
        ops = [op for op in self.run.phase("forward", "loss") if op.location is not None and op.inputs and op.outputs]
        candidates = [self._judge(op) for op in ops if not is_exp(op)]
        candidates += [self._exponential(op) for op in ops if is_exp(op) and op.index not in self.claimed]
        for expression in candidates:
            if expression is not None and expression.path:  # else nothing between that could be tried
                yield self._with_selection(expression)

    def _judge(self, op: Op) -> Expression | None:
        name = op.name
        if name in LOGARITHMS:
            return self._logarithm(op)
        if name == "div" and len(op.inputs) == 2:
            return self._quotient(op, op.inputs[1])
        if name in RECIPROCALS:
            return self._quotient(op, op.inputs[0])
        if name == "sqrt" or (name == "pow" and 0 < exponent(op.attributes) < 1):
            return self._root(op)
        if name == "pow" and not _harmless_exponent(op):
            return self._made(POWER, op, op, op.inputs[0])
        if name in INVERSES:
            return self._made(INVERSE_TRIGONOMETRIC, op, op, op.inputs[0])
        return None

    # -- forms --------------------------------------------------------------------------------------------------------------

    def _logarithm(self, op: Op) -> Expression | None:
        operand = op.inputs[0]
        if not self.flow.varies(operand):
            return None
        ways = self.flow.roots(operand)
        roots = [self.run.ops[i] for i in ways]
        exps = [root for root in roots if is_exp(root) and "mixture" not in ways[root.index]]
        if exps:
            way = frozenset[str]().union(*(ways[e.index] for e in exps))
            plain = not way & {"product", "neg", "rsub", "sub"}
            if plain and way & SUMS:
                return self._overflowing(LOGSUMEXP_BY_HAND, op, exps)
            rate = op.name == "log1p" and "mul" in way  # log1p(c · exp(z)): the exp is a quantity of its own
            if plain and not rate and (way & {"add"} or op.name == "log1p" or exps[0].name == "cosh"):
                return self._overflowing(SOFTPLUS_BY_HAND, op, exps)
            return self._made(LOGARITHM, op, op, operand, cause=exps[0])
        mixed = [root for root in roots if "mixture" in ways[root.index]]
        if not all(self._probability(root) for root in mixed):
            return self._made(LOGARITHM, op, op, operand)
        for root in roots:
            if root.name == "div" and len(root.inputs) == 2 and (found := self._log_of_ratio(op, root)) is not None:
                return found
            if root.name in SOFTMAXES:
                dim = int(root.attributes.get("dim", -1))
                return self._made(LOG_OF_SOFTMAX, op, op, operand, link=root.inputs[0], cause=root, gap_dim=dim)
            if (exp := self._softmax_by_hand(root)) is not None:
                return self._made(LOG_OF_SOFTMAX, op, op, operand, link=exp.inputs[0], cause=root)
            complement = op.name == "log1p" or bool(ways[root.index] & {"rsub", "sub", "neg"})
            if root.name == "sigmoid":
                return self._made(LOG_OF_SIGMOID, op, op, operand, link=root.inputs[0], cause=root, complement=complement)
            if (exp := self._sigmoid_by_hand(root)) is not None:
                return self._made(LOG_OF_SIGMOID, op, op, operand, link=exp.inputs[0], cause=root, complement=complement)
        return self._made(LOGARITHM, op, op, operand)

    def _log_of_ratio(self, op: Op, ratio: Op) -> Expression | None:
        """log(p / m) with a softmax above or below: the ratio ends where p does."""
        for part in ratio.inputs:
            softmaxes = [r for i in self.flow.roots(part) if (r := self.run.ops[i]).name in SOFTMAXES]
            if softmaxes:
                (root, *_), dim = softmaxes, int(softmaxes[0].attributes.get("dim", -1))
                return self._made(LOG_OF_SOFTMAX, op, ratio, part, link=root.inputs[0], cause=root, end=op, gap_dim=dim)
        return None

    def _probability(self, op: Op) -> bool:
        return op.name in SOFTMAXES or op.name == "sigmoid"

    def _quotient(self, op: Op, operand: int) -> Expression | None:
        if not self.flow.varies(operand):
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
        if not self.flow.varies(operand):
            return None
        exps = self._exps(operand)
        if exps and "product" not in self.flow.roots(operand)[exps[0].index]:
            return self._overflowing(ROOT_OF_EXP, op, exps)
        return self._made(ROOT, op, op, operand)

    def _exponential(self, op: Op) -> Expression | None:
        uses = [use for value in op.outputs for use in self.flow.uses(value)]
        if len(uses) == 1 and _bounds_above(uses[0]):  # a policy's ratio is clamped and used as it is: that is no guard
            return self._made(LATE_CLAMP, op, op, op.inputs[0], cause=uses[0], end=uses[0])
        ratio = self._against_an_input(op.inputs[0]) and not any(_bounds_above(use) for use in uses)
        return self._made(RATIO if ratio else EXP, op, op, op.inputs[0])

    def _against_an_input(self, exponent: int) -> bool:
        """Whether an exponent is what the model computes of a layer's output, minus an input as it came: a log-probability
        against the one that was recorded with the data."""
        difference = self.flow.maker(exponent)
        if difference is None or difference.name not in ("sub", "rsub") or len(difference.inputs) != 2:
            return False
        makers = [self.flow.maker(i) for i in difference.inputs if self.flow.data(i)]
        computed = [m for m in makers if m is not None and not self.flow.free(m)]
        return len(makers) == 2 and None in makers and len(computed) == 1

    def _overflowing(self, form: str, op: Op, exps: list[Op]) -> Expression | None:
        self.claimed.update(e.index for e in exps)
        return self._made(form, op, exps[0], exps[0].inputs[0], cause=exps[0], end=op)

    def _exps(self, value_id: int) -> list[Op]:
        ways = self.flow.roots(value_id)
        return [op for i in ways if is_exp(op := self.run.ops[i]) and "mixture" not in ways[i]]

    def _softmax_by_hand(self, op: Op) -> Op | None:
        """The exp in the denominator of exp(z)/Σexp(z), whatever stands above it."""
        if op.name != "div" or len(op.inputs) != 2:
            return None
        below = self.flow.roots(op.inputs[1])
        exps = [e for i in below if is_exp(e := self.run.ops[i]) and not below[i] & {"product", "mixture"}]
        if not exps:
            return None
        summed = any(below[e.index] & SUMS for e in exps)
        return exps[0] if summed or self._exps(op.inputs[0]) else None

    def _sigmoid_by_hand(self, op: Op) -> Op | None:
        """The exp in 1/(1 + exp(-z))."""
        name = op.name
        if name not in ("reciprocal", "div"):
            return None
        below = op.inputs[-1]
        added = self.flow.maker(below)
        exps = self._exps(below) if added is not None and added.name == "add" else []
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
        complement: bool = False,
    ) -> Expression | None:
        upstream = self.flow.slice(operand) if self.flow.varies(operand) else None
        if upstream is None or not (upstream.sources or (form in GENERAL and upstream.parameters)):
            return None
        path = self.flow.between(upstream, danger if end is None else end)
        return Expression(
            form,
            op.index,
            danger.index,
            operand,
            operand if link is None else link,
            self._signed(operand),
            gap_dim,
            path,
            upstream,
            None if cause is None else cause.index,
            complement=complement,
            differentiated=danger.index in self.flow.differentiated and all(self.run.ops[i].recording for i in path),
        )

    def _signed(self, operand: int) -> int:
        maker = self.flow.maker(operand)
        if maker is None:
            return operand
        squared = (maker.name == "pow" and exponent(maker.attributes) % 2 == 0) or (
            maker.name == "mul" and len(maker.inputs) == 2 and maker.inputs[0] == maker.inputs[1]
        )
        return maker.inputs[0] if maker.name in EVEN or squared else operand

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
        found = [u if u.name in SELECTIONS else self._selection(u, steps - 1) for u in uses]
        return found[0] if all(f is found[0] for f in found) else None


def is_exp(op: Op) -> bool:
    """Whether an op overflows the way exp does: exp, exp2, expm1, sinh, cosh, a constant to a varying power."""
    return op.name in EXPONENTIALS or (op.name == "pow" and "self" in op.attributes)


def _harmless_exponent(op: Op) -> bool:
    power = exponent(op.attributes)
    return power >= 1 and power == int(power)


def _bounds_above(op: Op) -> bool:
    name = op.name
    return name in ("clamp_max", "minimum") or (
        name in ("clamp", "hardtanh") and ("max" in op.attributes or len(op.inputs) > 2)
    )
