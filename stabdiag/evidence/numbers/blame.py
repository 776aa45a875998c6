"""Where an error is made: from a wrong result back to the op at which the computation, not the model, lost the digits.

The instability index of a value is I = e / (u · max(1, κ)): its error against the reference, over the error that rounding the
inputs and parameters once would cause anyway (κ by perturbation, `stabdiag.probe.experiments.conditioning`). It stays near 1
through a stable computation, however ill-conditioned the model, and jumps at the op that makes the error. Backward stability
in the sense of Higham 2002, 1.5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite, log2

from stabdiag.evidence.graph.main_path import is_live
from stabdiag.evidence.numbers.poison import ADDS, harmful, overflowed
from stabdiag.trace import DISCRETE, Op, Run, Trace
from stabdiag.trace.counterpart import Counterparts, reference_of
from stabdiag.trace.experiments import Conditioning
from stabdiag.trace.formats import FORMATS, Format, format_of

DIFFERENCES = frozenset(["add", "sub", "rsub"])
LIMIT = 8.0  # I at which 3 bits are lost that a stable computation would keep
FLOAT32_HARM = 2.0**-11  # outputs of a float32 run that float16 could not hold more accurately suffice for any training
FIRST_DIGIT = 0.1  # outputs further off than this are looked into from half the limit on: healthy models reach 0.03 and I = 1.6
FLOAT32_FACTOR = 4.0  # accumulation orders differ: healthy float32 runs reach I = 6.2, half precisions 1.6


@dataclass(frozen=True)
class Blame:
    """The op that makes the error of a run.

    Attributes:
        op: of the run; error: relative error of its result; index: I of its result; inherited: largest relative error among
            its inputs; bits: that cancel in it, log2((|a|+|b|)/|a−b|) in root mean squares, 0 where it is no difference.
        result: relative error of what it ends in, `end`: "outputs" or "loss" (None: not finite); fatal: NaN was
            made of it.
        narrowed: the author holds the result in a format with fewer digits than that of the run.
    """

    op: Op
    error: float
    index: float
    inherited: float
    bits: float
    result: float | None
    fatal: bool = False
    narrowed: bool = False
    end: str = "outputs"

    @property
    def outcome(self) -> str:
        """What it ends in, in words."""
        if self.fatal:
            return "NaN is made of it"
        return f"the {self.end} {'are' if self.end == 'outputs' else 'is'} off by {self.result or 0.0:.2g}"

    def cancels(self, format: Format) -> bool:
        """Whether the op is a difference in which more than half of the format's bits cancel."""
        return self.bits > format.digits / 2


class Errors:
    """Errors and condition numbers of one run's values."""

    def __init__(self, trace: Trace, run: Run) -> None:
        reference = reference_of(trace)
        measured = trace.experiments.conditioning
        known = measured.get(run.precision) or measured.get("rounding") or Conditioning()
        self.run = run
        self.known = known.ops
        self.output = known.output
        self.there = None if reference is None else Counterparts(run, reference)
        self.unit = format_of(run.precision).unit_roundoff

    def condition(self, op: Op) -> float | None:
        """κ of an op's result, at least that of its inputs (one perturbation of a scalar may happen to cancel)."""
        own = self._condition(op)
        before = [k for v in op.inputs if (p := self.producer(v)) is not None and (k := self._condition(p)) is not None]
        return None if own is None else max([1.0, own, *before])

    def _condition(self, op: Op) -> float | None:
        there = self.there.op(op) if self.there is not None else None
        return self.known.get(there.index) if there is not None else None

    def unavoidable(self) -> float:
        """Relative error of the outputs that rounding inputs and parameters once causes; inf when it was not measured."""
        return inf if self.output is None else self.unit * max(1.0, self.output)

    def producer(self, value_id: int) -> Op | None:
        """The op behind a value, views passed over, but no cast that the author wrote and that loses digits."""
        while (op := self.run.producer(value_id)) is not None and op.view and op.inputs:
            if op.name == "_to_copy" and self.narrows(op):
                break
            value_id = op.inputs[0]
        return op

    def narrows(self, op: Op) -> bool:
        """Whether an op has its result in a format with fewer digits than that of the run: the author's own choice."""
        value = self.run.output_of(op)
        return value is not None and value.dtype in FORMATS and format_of(value.dtype).unit_roundoff > self.unit

    def of(self, op: Op) -> tuple[float, float] | None:
        """(relative error, I) of an op's result; None where either is unknown."""
        value, condition = self.run.output_of(op), self.condition(op)
        if value is None or value.error is None or condition is None or not value.dtype.startswith(("float", "bfloat")):
            return None
        return value.error, value.error / (self.unit * condition)


def blamed_runs(trace: Trace, limit: float) -> list[tuple[Run, Blame]]:
    """Every run of the model as built whose error some op makes, with that op."""
    found = []
    for run in trace.runs:
        if run.precision != "float64" and not run.step and not run.seed:
            blamed = blame(trace, run, limit)
            if blamed is not None:
                found.append((run, blamed))
    return found


def loss_error(run: Run) -> float | None:
    """Relative error of the loss; None where it was not compared."""
    op = None if run.loss_value is None else run.producer(run.behind_views(run.loss_value))
    value = None if op is None else run.output_of(op)
    return None if value is None else value.error


def _misled(run: Run, least: float) -> bool:
    """Whether both the loss and its gradient are off: a loss that happens to be near 0 is no worse for being wrong there."""
    return min(loss_error(run) or 0.0, run.gradient_error or 0.0) >= least


def blame(trace: Trace, run: Run, limit: float) -> Blame | None:
    """The op that makes the error of a run's outputs, of its loss where the outputs are right, or of what became NaN; None when
    the error is what the model's own conditioning explains, when it was never measured, or when a discrete choice fell
    differently."""
    errors = Errors(trace, run)
    float32 = format_of(run.precision).name == "float32"
    limit, harm = (limit * FLOAT32_FACTOR, FLOAT32_HARM) if float32 else (limit, 0.0)
    limit = limit / 2 if (run.output_error or 0.0) > FIRST_DIGIT else limit
    broken, end = harmful(run), "outputs"
    if errors.there is None or any(overflowed(run, birth, errors.there, format_of(run.precision)) for birth in broken):
        return None
    if broken:
        starts = [p for birth in broken for v in birth.op.inputs if birth.leaf is None and (p := errors.producer(v))]
    elif (run.output_error or 0.0) >= max(errors.unavoidable() * limit, harm):
        if _another_computation(trace, run, lambda r: r.output_error):
            return None
        starts = [p for v in run.outputs if (p := errors.producer(v)) is not None]
    elif _misled(run, max(harm, limit * errors.unit)) and not _another_computation(trace, run, loss_error):
        end = "loss"
        starts = [p for v in (run.loss_value,) if v is not None and (p := errors.producer(v)) is not None]
    else:
        return None
    measured = [(found[1], op) for op in starts if (found := errors.of(op)) is not None]
    if not measured:
        return None
    worst, op = max(measured, key=lambda m: m[0])
    blamed = _walk(errors, op, limit, bool(broken), end) if worst > limit else None
    if blamed is not None and blamed.narrowed and not blamed.fatal and (blamed.result or 0.0) < FIRST_DIGIT:
        return None  # 16 bits that the author chose cost what 16 bits cost
    return blamed


def _another_computation(trace: Trace, run: Run, error_of: Callable[[Run], float | None]) -> bool:
    """Whether a narrower format comes closer to the reference: rounding cannot do that, code that asks for the dtype does (an
    epsilon by dtype, an in-place op that a cast keeps from the original)."""
    error, unit = error_of(run) or 0.0, format_of(run.precision).unit_roundoff
    narrower = [error_of(r) for r in trace.runs if format_of(r.precision).unit_roundoff > unit and not r.step and not r.seed]
    return error < FIRST_DIGIT and any(e is not None and e < error for e in narrower)


def made_inside(trace: Trace, run: Run, limit: float) -> list[Op]:
    """The ops that make a value lose its first digit inside a run whose outputs and loss do not show it: side branches, which a
    residual stream dilutes. Empty where an end shows it."""
    errors = Errors(trace, run)
    if errors.there is None or run.error is not None or harmful(run) or blame(trace, run, limit) is not None:
        return []
    found = []
    for op in run.phase("forward", "loss"):
        known = errors.of(op)
        if op.view or known is None or known[0] < FIRST_DIGIT or known[1] < limit or not is_live(run, op.index):
            continue
        before = [e[1] for v in op.inputs if (p := errors.producer(v)) is not None and (e := errors.of(p)) is not None]
        chosen = any(_chosen_differently(run, v) for v in op.inputs)
        if not chosen and max(before, default=0.0) < max(limit / 2, known[1] / 16):
            found.append(op)
    return found


def _walk(errors: Errors, op: Op, limit: float, fatal: bool, end: str) -> Blame | None:
    run = errors.run
    while True:
        found = errors.of(op)
        assert found is not None
        before = []
        for value_id in op.inputs:
            made_by = errors.producer(value_id)
            if _chosen_differently(run, value_id):
                return None
            inner = errors.of(made_by) if made_by is not None and made_by.index < op.index else None
            if inner is not None and made_by is not None:
                before.append((inner[0] * _weight(run, op, value_id), inner[1], inner[0], made_by))
        heaviest = max(before, key=lambda b: b[0], default=None)
        if heaviest is None or heaviest[1] < max(limit / 2, found[1] / 16):
            inherited = max((b[2] for b in before), default=0.0)
            result = None if fatal else run.output_error if end == "outputs" else loss_error(run)
            return Blame(op, found[0], found[1], inherited, cancelled_bits(run, op), result, fatal, errors.narrows(op), end)
        op = heaviest[3]


def _chosen_differently(run: Run, value_id: int) -> bool:
    """Whether integers or booleans come from a choice (a routing, a comparison) that fell otherwise than in the reference."""
    front, seen = [value_id], set[int]()
    while front:
        value = run.values[current := run.behind_views(front.pop())]
        op = run.producer(current)
        if op is None or current in seen or value.dtype.startswith(("float", "bfloat")):
            continue
        seen.add(current)
        if op.name in DISCRETE and value.error:
            return True
        front.extend(op.inputs)
    return False


def _weight(run: Run, op: Op, value_id: int) -> float:
    """How an input's relative error counts in the result: by its share of the magnitude in sums, fully elsewhere."""
    output, value = run.output_of(op), run.values[run.behind_views(value_id)]
    if op.name not in ADDS or output is None or output.stats is None or value.stats is None:
        return 1.0
    return value.stats.rms / output.stats.rms if output.stats.rms > 0 else 1.0


def cancelled_bits(run: Run, op: Op) -> float:
    """log2((|a| + |b|) / |a ± b|) in root mean squares; 0 where the op is no sum of two."""
    output = run.output_of(op)
    if op.name not in DIFFERENCES or output is None or output.stats is None:
        return 0.0
    sizes = [s.rms for v in op.inputs if (s := run.values[run.behind_views(v)].stats) is not None and isfinite(s.rms)]
    other = op.attributes.get("other")
    if len(sizes) == 1 and isinstance(other, int | float):
        sizes.append(abs(float(other)))
    rms = output.stats.rms
    return max(0.0, log2(sum(sizes) / rms)) if len(sizes) == 2 and rms > 0 and sum(sizes) > 0 else 0.0
