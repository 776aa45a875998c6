"""One recorded run as a graph: `ops` in order of execution, `values` that flow between them.

A value is a leaf (`input`, `parameter`, `buffer`, `constant`) or the result of an op; ids are indices into `Run.values`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import Any

from stabdiag.trace.stats import Stats


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
        name: aten name without namespace and overload ("mm", "_softmax", "native_layer_norm"); in place or not, the
            name is the same.
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
        tracked: a gradient could flow back from here: some input requires one.
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
    tracked: bool = False

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
        loaded: its content came by `load_state_dict`.
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
    loaded: bool = False
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Raised:
    """An exception about numbers that ended a run: a matrix that cannot be factorised, a value that something refuses.

    Attributes:
        op: index of the op it is about, None where no op ran; location: the author's line.
        message: what the exception says, one line.
        facts: what was given and demanded (`stabdiag.recording.numerical.about_numbers`).
    """

    op: int | None
    location: Location | None
    message: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """One probed precision, seed and training step.

    Attributes:
        precision: one of `stabdiag.trace.formats.PRECISIONS`.
        mode: "native" (this device's kernels) or "emulated" (float32 kernels, results rounded to the format).
        seed: 0 is the model as built; k > 0 was rebuilt with its seeds offset by k.
        step: optimizer steps taken before this run.
        batches: how many batches are merged in it.
        loss_scale: what the gradient of the loss started from; gradients of values carry it, those of parameters do not.
        ops, values, parameters: see there.
        buffers: name -> stats of each floating-point buffer after the run.
        poisoned_buffers: names of those that were finite before the run and are not after it.
        state: name -> value id of what a buffer or parameter holds after the forward pass, where that has written to it.
        outputs: value ids of the model's outputs; loss_value: value id of the loss.
        loss: the loss as a Python float (None when the run broke before it).
        output_samples: up to 2,048 values of each output at fixed positions (float64, float32), to compare edited models;
            gradient_samples: up to 64 values of the gradient of each parameter, by its name, likewise.
        output_error: L2 distance to the outputs of the reference run, relative to their spread between samples.
        output_spread: that spread, relative to the outputs themselves; of the reference run.
        gradient_error: L2 distance to all parameter gradients of the reference run, relative to their norm.
        gradient_projection: share of the reference gradient in this one, which a step along it descends by to first order.
            All of them are None when not compared.
        error: why the run broke, one sentence; None when it did not.
        error_phase, error_at: in which phase ("forward", "loss", "backward") and at which of the author's lines.
        raised: set as well where it broke because of its numbers.
        derived: what was worked out from the run, see `stabdiag.trace.derived`.
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
    state: dict[str, int] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)
    loss_value: int | None = None
    loss: float | None = None
    output_samples: list[list[float]] = field(default_factory=list)
    gradient_samples: dict[str, list[float]] = field(default_factory=dict)
    output_error: float | None = None
    output_spread: float | None = None
    gradient_error: float | None = None
    gradient_projection: float | None = None
    error: str | None = None
    error_phase: str = ""
    error_at: Location | None = None
    raised: Raised | None = None
    derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def nonfinite_gradient(self) -> str | None:
        """The first parameter whose gradient is not finite, None where there is none."""
        return next((p.name for p in self.parameters if p.gradient is not None and p.gradient.nonfinite), None)

    @property
    def finite(self) -> bool:
        """Whether there is a loss, and it and the gradients of all parameters are finite."""
        return self.loss is not None and isfinite(self.loss) and self.nonfinite_gradient is None

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
