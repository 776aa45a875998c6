"""The Trace: everything a probe measured, in plain numbers.

This is the border. Before it lives what imports torch and runs the user's code; behind it nothing does. A Trace is made of
dataclasses of numbers, strings, lists and dicts, so it can be written to a file and judged again later
(`stabdiag.trace_file`). The Trace of one scan holds one `Run` per precision, seed and training step that was probed.

A `Run` is a graph: `ops` in order of execution, `values` that flow between them. A value is a leaf (`input`, `parameter`,
`buffer`, `constant`) or the result of an op; ids are indices into `Run.values`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import floor, inf, log2, sqrt
from typing import Any

from stabdiag.formats import Format

DISCRETE = frozenset(
    [
        "topk",
        "argmax",
        "argmin",
        "sort",
        "argsort",
        "ge",
        "gt",
        "le",
        "lt",
        "eq",
        "ne",
        "bucketize",
        "searchsorted",
        "multinomial",
    ]
)
"""Ops that choose: their integer results differ entirely or not at all, and end a comparison of precisions."""


@dataclass(slots=True)
class Stats:
    """The distribution of one tensor, or of several merged by addition (batches, calls, ranks).

    Counts and extremes are exact. `sum`, `sum_sq` and `histogram` are over `sampled` elements at fixed positions (all of
    them when `sampled == count`). Nothing is computed in the tensor's own low precision.

    Attributes:
        count: elements.
        nan, posinf, neginf, zeros: exact counts.
        min, max: of the finite elements; +inf and -inf when there are none.
        max_abs: largest finite magnitude, 0.0 when there is none.
        min_abs: smallest non-zero finite magnitude among the sample, inf when there is none.
        sampled: finite elements that went into sum, sum_sq and histogram (zeros included).
        sum, sum_sq: over the sample, in float64.
        histogram: floor(log2|x|) -> how many sampled finite non-zero elements.
    """

    count: int = 0
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    zeros: int = 0
    min: float = inf
    max: float = -inf
    max_abs: float = 0.0
    min_abs: float = inf
    sampled: int = 0
    sum: float = 0.0
    sum_sq: float = 0.0
    histogram: dict[int, int] = field(default_factory=dict)

    @property
    def nonfinite(self) -> int:
        """How many elements are NaN or infinite."""
        return self.nan + self.posinf + self.neginf

    @property
    def rms(self) -> float:
        """Root mean square of the finite elements; NaN when nothing was sampled."""
        return sqrt(self.sum_sq / self.sampled) if self.sampled else float("nan")

    @property
    def mean(self) -> float:
        """Mean of the finite elements; NaN when nothing was sampled."""
        return self.sum / self.sampled if self.sampled else float("nan")

    @property
    def std(self) -> float:
        """Standard deviation of the finite elements; NaN when nothing was sampled."""
        return sqrt(max(0.0, self.sum_sq / self.sampled - self.mean**2)) if self.sampled else float("nan")

    @property
    def norm(self) -> float:
        """L2 norm over all elements, estimated from the sample's root mean square; at least the largest element, which a sample
        may miss (the gradient of logits over a large vocabulary lies in one element per row)."""
        return max(self.rms * sqrt(self.count - self.nonfinite), self.max_abs) if self.sampled else float("nan")

    def headroom(self, format: Format) -> float:
        """Bits between the largest magnitude and the format's largest value; negative when it overflows, inf for zeros."""
        return log2(format.max / self.max_abs) if self.max_abs > 0 else inf

    def below(self, magnitude: float) -> float:
        """Share of the non-zero sampled elements with |x| < magnitude (a power of two), NaN when there are none."""
        total = sum(self.histogram.values())
        if not total:
            return float("nan")
        exponent = log2(magnitude)
        return sum(n for e, n in self.histogram.items() if e < exponent) / total

    def energy_below(self, magnitude: float) -> float:
        """Share of the sum of squares that elements with |x| < magnitude (a power of two) hold, NaN when all are zero."""
        each = (self.count - self.nonfinite) / self.sampled if self.sampled else 0.0
        energies = {e: each * n * 4.0 ** min(max(e, -500), 500) for e, n in self.histogram.items()}
        if self.max_abs > 0:  # the sample may have missed it, and with it nearly all there is
            largest = floor(log2(self.max_abs))
            energies.setdefault(largest, 4.0 ** min(max(largest, -500), 500))
        total = sum(energies.values())
        return sum(x for e, x in energies.items() if e < log2(magnitude)) / total if total else float("nan")

    def underflow(self, format: Format, scale: float = 1.0) -> float:
        """Share of the non-zero elements that round to 0 in the format after multiplication by `scale` (a power of two)."""
        return self.below(format.smallest / 2 / scale)

    def subnormal(self, format: Format, scale: float = 1.0) -> float:
        """Share of the non-zero elements below the format's normal range after multiplication by `scale`."""
        return self.below(format.tiny / scale)

    def scaled(self, factor: float) -> Stats:
        """The statistics of the same tensor multiplied by a positive power of two."""
        shift = round(log2(factor))
        if shift == 0:
            return self
        return replace(
            self,
            min=self.min * factor,
            max=self.max * factor,
            max_abs=self.max_abs * factor,
            min_abs=self.min_abs * factor,
            sum=self.sum * factor,
            sum_sq=self.sum_sq * factor**2,
            histogram={exponent + shift: count for exponent, count in self.histogram.items()},
        )

    def __add__(self, other: Stats) -> Stats:
        histogram = dict(self.histogram)
        for exponent, count in other.histogram.items():
            histogram[exponent] = histogram.get(exponent, 0) + count
        return Stats(
            self.count + other.count,
            self.nan + other.nan,
            self.posinf + other.posinf,
            self.neginf + other.neginf,
            self.zeros + other.zeros,
            min(self.min, other.min),
            max(self.max, other.max),
            max(self.max_abs, other.max_abs),
            min(self.min_abs, other.min_abs),
            self.sampled + other.sampled,
            self.sum + other.sum,
            self.sum_sq + other.sum_sq,
            histogram,
        )


@dataclass(frozen=True, slots=True)
class Location:
    """A place in source code. `path` is relative to the working directory (POSIX) where it lies below it.

    Lines count from 1, columns from 0 (as `ast` does). `library` holds `path:line` of the library frame that ran the op when
    the user's line only called it, and the place itself when no line of the user's was on the stack.
    """

    path: str
    line: int
    column: int | None = None
    end_column: int | None = None
    function: str = ""
    source: str = ""
    library: str = ""


@dataclass(slots=True)
class Value:
    """A tensor that flowed between ops.

    Attributes:
        kind: "input", "parameter", "buffer", "constant" (a leaf nobody named) or "result".
        name: name of the parameter, buffer or input; "" for results.
        op: index of the op that made it, None for leaves.
        dtype: e.g. "float32"; shape: sizes.
        unit_dim: the dimension that counts units (channels, features), found by following layouts from the layer that made
            it; None when unknown.
        stats: None when not measured (integers, views share the stats of what they view).
        gradient: of the loss with respect to this value; None when it has none or it was not recorded.
        error: relative L2 distance to the same value in the reference run; for results of discrete ops the share of elements
            that differ; None when it was not compared.
    """

    kind: str
    name: str
    op: int | None
    dtype: str
    shape: tuple[int, ...]
    unit_dim: int | None = None
    stats: Stats | None = None
    gradient: Stats | None = None
    error: float | None = None


@dataclass(slots=True)
class Op:
    """One dispatched op.

    Attributes:
        index: position in `Run.ops`.
        name: aten name without namespace and overload ("mm", "_softmax", "native_layer_norm"); in-place ops keep their "_".
        phase: "forward", "loss", "backward" or "step" (the optimizer's).
        module, module_type, call: path of the innermost module that was running ("" is the root), its class, and which call
            of that module this was.
        layer: module path of the parameter that the data last went through ("convs.3" for the ReLU behind it), "" if none.
        location: in the user's file wherever one is on the stack.
        inputs, outputs: value ids.
        attributes: arguments that are no tensors, by schema name (numbers, bools, strings, lists of them).
        view: the op only views or copies its first input.
        forward: for backward ops, the forward op they differentiate, if known.
        facts: what rules asked to be measured here, by measurement name; numbers and lists that add over batches and calls.
        recording: autograd was recording; it is not under no_grad nor inside the forward of a custom autograd function.
    """

    index: int
    name: str
    phase: str
    module: str
    module_type: str
    call: int
    layer: str
    location: Location | None
    inputs: list[int]
    outputs: list[int]
    attributes: dict[str, Any] = field(default_factory=dict)
    view: bool = False
    forward: int | None = None
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    recording: bool = True

    @property
    def site(self) -> tuple[Any, ...]:
        """What is the same place in the author's eyes: all calls and time steps of it, whatever the precision."""
        at = self.location
        return (self.phase, self.name, self.module, self.layer, at and (at.path, at.line, at.column, at.library))


@dataclass(slots=True)
class Parameter:
    """One parameter tensor.

    Attributes:
        gradient: of the unscaled loss; None where autograd gave none (unused or frozen).
        fan_in: inputs of one unit, None for vectors.
        made_at: where the module that owns it was constructed; initialised_at: where its content was last written while the
            model was being built (`nn.init.…`). Both in the user's files where a line of theirs is on the stack.
        initialised_for: where the function that wrote it was called; copied_at: where it was copied from another tensor.
    """

    name: str
    module: str
    module_type: str
    shape: tuple[int, ...]
    requires_grad: bool
    stats: Stats | None = None
    gradient: Stats | None = None
    gradient_error: float | None = None
    fan_in: int | None = None
    made_at: Location | None = None
    initialised_at: Location | None = None
    initialised_for: Location | None = None
    copied_at: Location | None = None
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Run:
    """One probed precision, seed and training step.

    Attributes:
        precision: one of `stabdiag.formats.PRECISIONS`.
        mode: "native" (this device's kernels) or "emulated" (float32 kernels, results rounded to the format).
        seed: 0 is the model as built; k > 0 was rebuilt with its seeds offset by k.
        step: optimizer steps taken before this run.
        batches: how many batches are merged in it.
        loss_scale: what the gradient of the loss started from; gradients of values carry it, those of parameters do not.
        ops, values, parameters: see there.
        buffers: name -> stats of each floating-point buffer after the run.
        poisoned_buffers: names of those that were finite before the run and are not after it.
        outputs: value ids of the model's outputs; loss_value: value id of the loss.
        loss: the loss as a Python float (None when the run broke before it).
        output_sample: up to 2,048 values of each output at fixed positions (float64, float32), to compare edited models.
        output_error, gradient_error: relative L2 distance to the reference run over all outputs, all parameter gradients;
            gradient_cosine likewise. None when not compared.
        error: why the run broke, one sentence; None when it did not.
    """

    precision: str
    mode: str = "native"
    seed: int = 0
    step: int = 0
    batches: int = 1
    loss_scale: float = 1.0
    ops: list[Op] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    parameters: list[Parameter] = field(default_factory=list)
    buffers: dict[str, Stats] = field(default_factory=dict)
    poisoned_buffers: list[str] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    loss_value: int | None = None
    loss: float | None = None
    output_sample: list[float] = field(default_factory=list)
    output_error: float | None = None
    gradient_error: float | None = None
    gradient_cosine: float | None = None
    error: str | None = None

    def inputs_of(self, op: Op) -> list[Value]:
        """The values that went into an op."""
        return [self.values[i] for i in op.inputs]

    def output_of(self, op: Op) -> Value | None:
        """The first value an op made, None for ops without tensor results."""
        return self.values[op.outputs[0]] if op.outputs else None

    def producer(self, value_id: int) -> Op | None:
        """The op that made a value, None for leaves."""
        made_by = self.values[value_id].op
        return None if made_by is None else self.ops[made_by]

    @cached_property
    def _consumers(self) -> dict[int, list[int]]:
        consumers: dict[int, list[int]] = {}
        for op in self.ops:
            for value_id in op.inputs:
                consumers.setdefault(value_id, []).append(op.index)
        return consumers

    def consumers(self, value_id: int) -> list[Op]:
        """The ops that read a value, in order of execution."""
        return [self.ops[i] for i in self._consumers.get(value_id, [])]

    def phase(self, *names: str) -> Iterator[Op]:
        """The ops of the named phases, in order of execution."""
        return (op for op in self.ops if op.phase in names)

    def behind_views(self, value_id: int) -> int:
        """Follow views back to the value they show."""
        while (op := self.producer(value_id)) is not None and op.view and op.inputs:
            value_id = op.inputs[0]
        return value_id


@dataclass(slots=True)
class SubjectFacts:
    """What was scanned, and how it was found.

    `how` answers for "model", "inputs" and "objective": what was chosen and why. `declared` lists which of "inputs", "loss",
    "optimizer" came from the author; claims about data or targets may only stand on what is declared. `training` holds the
    settings that the file declares (`stabdiag.subject.declared`).
    """

    path: str
    name: str
    parameters: int
    inputs: str
    objective: str
    how: dict[str, str] = field(default_factory=dict)
    declared: list[str] = field(default_factory=list)
    rebuildable: bool = False
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class NotRun:
    """A precision that could not be probed, and why, in one sentence."""

    precision: str
    reason: str


@dataclass
class Trace:
    """All that one scan measured.

    `experiments` holds what further probes found, by name (plain data each documents itself); `modules` says where in the
    user's files each module was constructed, by module path, `data` where what a model input holds was made, by input name.
    """

    subject: SubjectFacts
    runs: list[Run] = field(default_factory=list)
    not_run: list[NotRun] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)
    experiments: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, Location | None] = field(default_factory=dict)
    data: dict[str, Location | None] = field(default_factory=dict)

    def run(self, precision: str, *, seed: int = 0, step: int = 0) -> Run | None:
        """The run of a precision, None when it was not probed."""
        for run in self.runs:
            if (run.precision, run.seed, run.step) == (precision, seed, step):
                return run
        return None

    def seeds(self, precision: str = "float32", step: int = 0) -> list[Run]:
        """All runs of a precision at a step, one per seed."""
        return [run for run in self.runs if (run.precision, run.step) == (precision, step)]

    @property
    def base(self) -> Run | None:
        """The run that value-independent facts are read from: float32, else the most precise one that ran."""
        for precision in ("float32", "float64", "amp-bfloat16", "bfloat16", "amp-float16", "float16"):
            if (run := self.run(precision)) is not None and run.ops:
                return run
        return None

    @property
    def precisions(self) -> list[str]:
        """Probed precisions that belong in the report, without the float64 reference unless it is all there is."""
        return list(dict.fromkeys(run.precision for run in self.runs if run.step == 0))


def merged(stats: Iterable[Stats | None]) -> Stats | None:
    """The sum of the statistics that are there; None when none is (missing is not zero)."""
    total: Stats | None = None
    for one in stats:
        if one is not None:
            total = one if total is None else total + one
    return total
