"""Epsilons in a recorded graph: small constants that are to keep a divisor, a logarithm or a root away from zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stabdiag.evidence.expressions.forms import REPLACEABLE, Expression, expressions
from stabdiag.evidence.expressions.plausible import REACHED, SPECIAL, near
from stabdiag.evidence.numbers.poison import harmful
from stabdiag.finding import Severity
from stabdiag.trace import Op, Run, Trace
from stabdiag.trace.dependence import dependence
from stabdiag.trace.formats import FORMATS, Format, format_of
from stabdiag.trace.ops import singular_at

LARGEST = 1e-3  # what is added on purpose is larger than an epsilon
_PASSES_ZERO_ON = frozenset(["sqrt", "mul", "expand", "sum", "mean", "pow"])
_PASSES_ONE_ON = frozenset(["expand", "pow", "neg", "abs"])
_CLAMPS = frozenset(["clamp", "clamp_min", "clamp_max"])
_SUMS = frozenset(["add", "rsub"])


@dataclass(frozen=True)
class Epsilon:
    """One epsilon that a format loses.

    Attributes:
        op: that adds it (or bounds by it), in the run; value: as written, negative for what is taken from 1.
        consumer: the op that is singular without it.
        absorbed: it is lost in the 1 it was added to or taken from, not below the format's smallest number.
    """

    op: Op
    value: float
    consumer: Op
    absorbed: bool = False


def lost(run: Run) -> Iterator[Epsilon]:
    """Epsilons that are 0 in the format that their op computed in, or vanish in the 1 they belong to, before a singular op.

    Native normalisation kernels take theirs as an argument and compute in float32: they are not among these.
    """
    for op in run.phase("forward", "loss"):
        output = run.output_of(op)
        if output is None or not output.dtype.startswith(("float", "bfloat")):
            continue
        format = format_of(output.dtype)
        for constant in _constants(op):
            if 0 < constant <= LARGEST:
                epsilon, consumer = constant, singular_consumer(run, op)
            elif epsilon := _beside_one(constant):
                consumer = _singular_at_one(run, op) if op.name in _CLAMPS else singular_consumer(run, op)
            else:
                continue
            found = None if consumer is None else Epsilon(op, epsilon, consumer, absorbed=epsilon != constant)
            if found is not None and _lost_in(format, found):
                yield found
                break


def _constants(op: Op) -> list[float]:
    """What is added to, taken from or bounding the operand: Python numbers."""
    names = ("min", "max") if op.name in _CLAMPS else ("other",) if op.name in _SUMS else ()
    return [value for name in names if isinstance(value := op.attributes.get(name), float)]


def _beside_one(constant: float) -> float:
    """What the author wrote next to a 1: 1e-8 of 1 + 1e-8, -1e-8 of 1 - 1e-8 and of -1 + 1e-8; 0 for other constants."""
    beside = abs(constant) - 1.0
    return beside if abs(beside) <= LARGEST else 0.0


def _lost_in(format: Format, epsilon: Epsilon) -> bool:
    """Whether a format rounds it away: above 1 numbers are twice as far apart as below."""
    if epsilon.absorbed:
        return -format.unit_roundoff / 2 <= epsilon.value <= format.unit_roundoff
    return epsilon.value <= format.smallest / 2


def _singular_at_one(run: Run, op: Op) -> Op | None:
    """The op behind a value bounded by ±1 that is singular there, or that takes it from 1 before it is singular at 0."""
    for _, consumer in _readers(run, op, _keeps_one):
        if singular_at(consumer.name, consumer.attributes, 1.0):
            return consumer
        from_one = consumer.name in _SUMS and abs(consumer.attributes.get("other", 0.0)) == 1
        if from_one and (found := singular_consumer(run, consumer)) is not None:
            return found
    return None


def singular_consumer(run: Run, op: Op) -> Op | None:
    """The op behind a value that divides by it, takes its logarithm or its root; through ops that leave a zero zero."""
    for value, consumer in _readers(run, op, lambda reader: reader.view or reader.name in _PASSES_ZERO_ON):
        divisor = len(consumer.inputs) > 1 and consumer.inputs[1] == value
        if singular_at(consumer.name, consumer.attributes, 0.0) and (consumer.name != "div" or divisor):
            return consumer
    return None


def _keeps_one(op: Op) -> bool:
    square = op.name == "mul" and len(set(op.inputs)) == 1
    return op.view or square or op.name in _PASSES_ONE_ON


def _readers(run: Run, op: Op, through: Callable[[Op], bool]) -> Iterator[tuple[int, Op]]:
    """Every op that reads an op's result, nearest first, directly or through ops that hand it on; with the value it reads."""
    front, seen = [op], {op.index}
    while front:
        value = front.pop(0).outputs[0]
        for reader in run.consumers(value):
            if reader.phase == "backward" or reader.index in seen:
                continue
            seen.add(reader.index)
            yield value, reader
            if through(reader):
                front.append(reader)


def bites(run: Run, epsilon: Epsilon) -> bool:
    """Whether the run itself became non-finite at the op that the epsilon was to protect."""
    near = {epsilon.consumer.index, *(op.index for v in epsilon.consumer.outputs for op in run.consumers(v))}
    births = [birth.op for birth in harmful(run)]
    return any(op.index in near or op.forward in near for op in births)


def reached(trace: Trace, epsilon: Epsilon, format: Format, within: float) -> Severity | None:
    """How bad it is that the operand gets where the epsilon was to keep it from, by the confirmation of the singular op.

    An error in float32 where that is near, a warning where it is further out or only zeros and constants get there. In 16 bits
    near counts only, for less: a warning for a bound that is 1 there, information for an epsilon that is 0 there and guards in
    float32.
    """
    base = trace.run("float32")
    if base is None:
        return None
    results = trace.experiments.confirmation.get("expressions", {})
    wide = format.name == "float32"
    found: list[Severity] = []
    for expression in expressions(base):
        breaks = results.get(expression.key, {}).get("breaks", {})
        elsewhere = "float32" in breaks and (expression.form in REPLACEABLE or not _lost_in(FORMATS["float32"], epsilon))
        if format.name not in breaks or elsewhere or not _guards(base, epsilon, expression):
            continue
        ways = [way for way in breaks[format.name].values() if way["how"] not in SPECIAL]
        close = any(near(way, within) or way["largest"] <= REACHED for way in ways)
        if wide:
            found.append(Severity.ERROR if close else Severity.WARNING)
        elif close:
            found.append(Severity.WARNING if epsilon.absorbed else Severity.INFO)
    return max(found, key=lambda severity: severity.rank, default=None)


def _guards(base: Run, epsilon: Epsilon, expression: Expression) -> bool:
    """Whether an epsilon stands before the singular op of an expression; the root of a divisor counts as its division."""
    danger = base.ops[expression.danger]
    makers = [dependence(base).maker(i) for i in danger.inputs]
    ends = {op.site for op in (danger, *makers) if op is not None}
    return epsilon.consumer.site in ends and any(base.ops[i].site == epsilon.op.site for i in expression.upstream.ops)
