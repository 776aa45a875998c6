"""Epsilons in a recorded graph: small constants that are to keep a divisor, a logarithm or a root away from zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stabdiag.evidence.poison import harmful
from stabdiag.formats import format_of
from stabdiag.trace import Op, Run

LARGEST = 1e-3  # what is added on purpose is larger than an epsilon
SINGULAR_AT_ZERO = frozenset(["reciprocal", "rsqrt", "log", "log2", "log10", "div", "div_", "sqrt"])
_PASSES_ZERO_ON = frozenset(["sqrt", "mul", "expand", "sum", "mean", "pow"])
_ADDED = {"add": "other", "add_": "other", "clamp": "min", "clamp_": "min", "clamp_min": "min", "clamp_min_": "min"}
_TAKEN_FROM = {"rsub": "other", "add": "other", "add_": "other"}


@dataclass(frozen=True)
class Epsilon:
    """One epsilon that a format loses.

    Attributes:
        op: that adds it (or bounds by it), in the run; value: as written.
        consumer: the op that is singular without it.
        absorbed: it is lost in the 1 it was added to, not below the format's smallest number.
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
        value = op.attributes.get(_ADDED.get(op.name, ""))
        if isinstance(value, float) and 0 < value <= min(LARGEST, format.smallest / 2):
            consumer = singular_consumer(run, op)
            if consumer is not None:
                yield Epsilon(op, value, consumer)
        one = op.attributes.get(_TAKEN_FROM.get(op.name, ""))
        if isinstance(one, float) and one != 1.0 and 0 < one - 1.0 < format.unit_roundoff:
            consumer = singular_consumer(run, op)
            if consumer is not None:
                yield Epsilon(op, one - 1.0, consumer, absorbed=True)


def singular_consumer(run: Run, op: Op, steps: int = 6) -> Op | None:
    """The op behind a value that divides by it, takes its logarithm or its root; through ops that leave a zero zero."""
    for consumer in run.consumers(op.outputs[0]):
        if consumer.phase == "backward":
            continue
        divisor = len(consumer.inputs) > 1 and consumer.inputs[1] == op.outputs[0]
        if consumer.name in SINGULAR_AT_ZERO and (consumer.name not in ("div", "div_") or divisor):
            return consumer
        negative_power = consumer.name == "pow" and float(consumer.attributes.get("exponent", 1.0)) < 0
        if negative_power:
            return consumer
        if steps and (consumer.view or consumer.name in _PASSES_ZERO_ON):
            found = singular_consumer(run, consumer, steps - 1)
            if found is not None:
                return found
    return None


def bites(run: Run, epsilon: Epsilon) -> bool:
    """Whether the run itself became non-finite at the op that the epsilon was to protect."""
    near = {epsilon.consumer.index, *(op.index for v in epsilon.consumer.outputs for op in run.consumers(v))}
    births = [birth.op for birth in harmful(run)]
    return any(op.index in near or op.forward in near for op in births)
