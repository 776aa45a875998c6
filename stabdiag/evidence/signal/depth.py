"""How the loss gradient changes over depth and over time: sequences of its norm, and the statistics that judge them.

Depth is the main path (`stabdiag.evidence.graph.main_path`); time is the chain of executions of one recurrent weight. Both are
judged on decades (log10 units), so that a loss multiplied by a constant changes nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import isfinite, log10
from statistics import fmean, median

from stabdiag.evidence.graph.main_path import LAYER_OPS, chain, is_layer, main_path
from stabdiag.rule import Fact, Ratchet
from stabdiag.trace import Op, Run, Stats, Trace, Value

LEAST_TIME_STEPS = 8
LEAST_LAYERS = 4  # of a course over depth that is judged: with fewer, one odd layer is the whole of it
END = 0.1  # share of a sequence whose mean is its first or last value
FIRST_TO_LAST = Fact("gradient_ratio", "gradient at the first layers {:.1e} of the last")
DECADES_LOST = 1.0  # of that ratio since the baseline, in powers of ten, from which on it is a loss
REPEATED = 0.8  # share of a sequence that places of the code make when they are run step after step


def ratio_ratchet(vanishing: bool) -> Ratchet:
    """The ratio of first to last gradient may not move further from 1: to the one side for SD101, to the other for SD102."""
    return Ratchet(
        "gradient_ratio",
        lambda before, now: (now < 1) is vanishing and abs(log10(now)) - abs(log10(before)) >= DECADES_LOST,
        "since the baseline, the gradient of the first layers went from {before:.2g} to {now:.2g} of the last layers'",
        "gradient_gain",
        min if vanishing else max,
        "backward",
    )


@dataclass(frozen=True)
class Course:
    """Gradient norms along a path, in order of execution: from the input side to the loss side, from early to late.

    Attributes:
        ops: which made (over depth) or read (over time) the values; norms: S_l, the L2 norm of dLoss/d(value l) over the batch,
            divided by the loss scale. Positions without a finite gradient are left out; those with an exactly zero one too,
            `zeros` counts them.
        over: "depth" or "time"; weight: the recurrent parameter of a course over time.
        way: over depth: all ops from the first of `ops` to the last, the ones between them included.
        carried: over time: whether the state also passes from step to step without going through the weight (gates, skips).
    """

    ops: tuple[Op, ...]
    norms: tuple[float, ...]
    zeros: int = 0
    over: str = "depth"
    weight: str = ""
    carried: bool = False
    way: tuple[Op, ...] = ()

    @cached_property
    def logs(self) -> list[float]:
        """log10 of the norms."""
        return [log10(s) for s in self.norms]

    @property
    def decades(self) -> float:
        """D = log10(S_first / S_last), each the mean over a tenth; negative when the gradient shrinks going back."""
        k = max(1, round(END * len(self.logs)))
        return fmean(self.logs[:k]) - fmean(self.logs[-k:])

    @property
    def slope(self) -> float:
        """Least-squares slope of log10 S_l over the position; positive when the gradient shrinks on its way back."""
        n = len(self.logs)
        middle, mean = (n - 1) / 2, fmean(self.logs)
        return sum((i - middle) * (v - mean) for i, v in enumerate(self.logs)) / sum((i - middle) ** 2 for i in range(n))

    @property
    def spread_decades(self) -> float:
        """D without its largest single step: one average pooling over n positions costs log10 √n and does not compound."""
        steps = [a - b for a, b in pairwise(self.logs)]
        total = sum(steps)
        return total - (min(steps) if total < 0 else max(steps))

    @property
    def in_steps(self) -> bool:
        """Whether nearly all positions are places of the code run again and again, whatever hands the state on: time. Layers
        are not among them: of those that run again with the same weights one is left."""
        times = Counter(op.site for op in self.ops if op.name not in LAYER_OPS)
        return sum(n for n in times.values() if n >= LEAST_TIME_STEPS) > REPEATED * len(self.ops)

    @property
    def typical_step(self) -> float:
        """Decades from one position to the next, the median: near 0 where a few of many layers lose all of it."""
        return median(b - a for a, b in pairwise(self.logs))

    @property
    def steepest(self) -> Op:
        """The op at the input side of the steepest change in the direction of the whole."""
        sign = 1 if self.decades < 0 else -1
        steps = [sign * (b - a) for a, b in pairwise(self.logs)]
        return self.ops[steps.index(max(steps))]


def over_depth(run: Run) -> Course | None:
    """The gradient along the main path. Executions of the same weight are time, not depth: the last one stands for them.

    None with fewer than two measured stations.
    """
    return _along(run, [station.op for station in main_path(run)], chain(run))


def _along(run: Run, stations: list[Op], way: list[Op]) -> Course | None:
    latest: dict[tuple[object, ...], tuple[Op, Stats | None]] = {}
    for op in stations:
        key = (op.site, *weights_of(run, op)) if is_layer(run, op) else (op.index,)
        latest.pop(key, None)
        latest[key] = (op, run.values[op.outputs[0]].gradient)
    course = _course(run, list(latest.values()))
    if course is None:
        return None
    first, last = course.ops[0].index, course.ops[-1].index
    return replace(course, way=tuple(op for op in way if first <= op.index <= last))


def over_time(run: Run) -> list[Course]:
    """The gradient along the state of each recurrent weight, for weights that were executed in a chain of 8 steps or more."""
    executions: dict[str, list[Op]] = {}
    for op in run.phase("forward"):
        if is_layer(run, op):
            for name in weights_of(run, op):
                executions.setdefault(name, []).append(op)
    courses = []
    for name, ops in executions.items():
        if len(ops) < LEAST_TIME_STEPS or not _chained(run, ops):
            continue
        states = [(op, gradient_of(run, data_of(run, op))) for op in ops[1:]]
        course = _course(run, states, over="time", weight=name, carried=_carried(run, ops))
        if course is not None and len(course.norms) + course.zeros >= LEAST_TIME_STEPS - 1:
            courses.append(course)
    return courses


def starved_layer(run: Run, course: Course) -> Op | None:
    """The trained layer that makes the first state of a recurrence, when all of its gradient comes through the recurrence."""
    first = next(op for op in run.phase("forward") if is_layer(run, op) and course.weight in weights_of(run, op))
    value_id = data_of(run, first)
    while (layer := run.producer(value_id)) is not None and layer.inputs and not is_layer(run, layer):
        value_id = data_of(run, layer)
    if layer is None or not is_layer(run, layer):
        return None
    gradient = gradient_of(run, layer.outputs[0])
    return layer if gradient is not None and 0 < gradient.norm / run.loss_scale < 10 * course.norms[0] else None


def most_precise(trace: Trace) -> Run | None:
    """The run that gradients are read from: float64 where it ran, because 1e-60 is a number there."""
    run = trace.run("float64")
    return run if run is not None and run.error is None else trace.base


def weights_of(run: Run, op: Op) -> list[str]:
    """Names of the parameters of two or more dimensions that a layer op reads, behind views."""
    read = (run.values[run.behind_views(i)] for i in op.inputs)
    return [v.name for v in read if v.kind == "parameter" and len(v.shape) >= 2]


def data_of(run: Run, op: Op) -> int:
    """Id of the value that a layer op applies its weight to: its first input that does not come from parameters alone."""
    for i in op.inputs:
        value = run.values[run.behind_views(i)]
        if value.kind not in ("parameter", "buffer"):
            return i
    return op.inputs[0]


def gradient_of(run: Run, value_id: int) -> Stats | None:
    """Gradient of a value, that of what it shows where it is a view."""
    value: Value = run.values[value_id]
    while value.gradient is None and (op := run.producer(value_id)) is not None and op.view and op.inputs:
        value_id = op.inputs[0]
        value = run.values[value_id]
    return value.gradient


def _course(
    run: Run, stops: list[tuple[Op, Stats | None]], *, over: str = "depth", weight: str = "", carried: bool = False
) -> Course | None:
    measured = [(op, g.norm / run.loss_scale) for op, g in stops if g is not None and not g.nonfinite and isfinite(g.norm)]
    alive = [(op, norm) for op, norm in measured if norm > 0]
    if len(alive) < 2:
        return None
    ops, norms = zip(*alive, strict=True)
    return Course(ops, norms, len(measured) - len(alive), over, weight, carried)


def _chained(run: Run, ops: list[Op]) -> bool:
    """Whether every execution reads what came out of the one before."""
    return all(_reaches(run, data_of(run, later), earlier.index) for earlier, later in pairwise(ops))


def _reaches(run: Run, value_id: int, target: int) -> bool:
    stack, seen = [value_id], set()
    while stack:
        op = run.producer(stack.pop())
        if op is None or op.index in seen or op.index < target:
            continue
        if op.index == target:
            return True
        seen.add(op.index)
        stack.extend(op.inputs)
    return False


def _carried(run: Run, ops: list[Op]) -> bool:
    """Whether the state read by the last execution holds something of earlier steps that went through no weight since."""
    first, before = ops[0].index, ops[-2].index
    stack, seen = [data_of(run, ops[-1])], set()
    while stack:
        op = run.producer(stack.pop())
        if op is None or op.index in seen or is_layer(run, op):
            continue
        if first < op.index < before:
            return True
        seen.add(op.index)
        stack.extend(op.inputs)
    return False
