"""One recorded training step: forward, loss and backward of the subject in one precision on one batch, as a Run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from stabdiag.probe.guest import as_found, seed_everything
from stabdiag.probe.precision import HALF, Precision, cast, emulated, precision, unrounded
from stabdiag.recording import stats
from stabdiag.recording.numerical import about_numbers
from stabdiag.recording.operator import Operator
from stabdiag.recording.reference import Outputs, Reference, difference, part
from stabdiag.recording.replay import Replay
from stabdiag.recording.source import of_exception
from stabdiag.recording.torch_private import undispatched
from stabdiag.recording.tracer import Execute, Tracer, plain
from stabdiag.rule import Measurement, ParameterMeasurement
from stabdiag.subject.frames import whole
from stabdiag.subject.subject import Inputs, Subject
from stabdiag.trace import Parameter, Raised, Run, Stats

SEED = 20_000
_OF_GRADIENT = 64  # values of each parameter's gradient that are kept; models have hundreds of parameters


@dataclass
class Stage:
    """A model made ready in one precision: parameters cast, on its device, restored when the stage is left."""

    model: nn.Module
    precision: Precision
    device: torch.device
    emulate: bool
    unrounded: bool = False

    @property
    def mode(self) -> str:
        """How 16-bit arithmetic is done."""
        return "emulated" if self.emulate else "native"

    @property
    def execute(self) -> Execute:
        """How an op is run."""
        return emulated if self.emulate else unrounded if self.unrounded else plain


@dataclass
class Recorder:
    """Records runs of one subject.

    Attributes:
        subject: what is run; device: where; measurements: what rules want recorded.
        replay: random draws of the first run on each batch, given back to the later ones.
        reference: samples of the reference run on batch 0, once it was recorded; experiments compare against it.
        doubtful: parts of the unscaled gradients of precisions whose descent is in doubt.
        unrounded: whether the float64 runs undo the author's casts to narrow formats; False where the model cannot do without.
    """

    subject: Subject
    device: torch.device
    measurements: list[Measurement | ParameterMeasurement] = field(default_factory=list)
    replays: dict[Any, Replay] = field(default_factory=dict)
    reference: Reference | None = None
    unrounded: bool = True
    doubtful: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @contextmanager
    def stage(
        self, name: str, *, model: nn.Module | None = None, emulate: bool | None = None, share: bool = False
    ) -> Iterator[Stage]:
        """Cast the model (the subject's own unless another is given) to a precision; put everything back at the end.

        `share` spares the copy of the parameters where they have that precision already and nothing will write them.
        """
        model = self.subject.model if model is None else model
        how = precision(name)
        if emulate is None:
            emulate = how.compute in HALF and self.device.type == "cpu"
        with as_found(model, how.cast, self.device, share=share), sdpa_kernel(SDPBackend.MATH):
            if not self.subject.keeps_mode:
                model.train()
            yield Stage(model, how, self.device, emulate, self.unrounded and how.cast == torch.float64)

    def inputs(self, stage: Stage, batch: int) -> Inputs:
        """Batch `batch`, floating-point tensors in the stage's precision."""
        inputs = self.subject.batch(batch)
        return Inputs(*cast((inputs.args, inputs.kwargs, inputs.target), stage.precision.cast, stage.device))

    def record(
        self,
        stage: Stage,
        *,
        batch: int = 0,
        seed: int = 0,
        step: int = 0,
        scale: float = 1.0,
        measure: bool = True,
        keep: Reference | None = None,
        against: Reference | None = None,
        keep_gradients: bool = False,
        within: AbstractContextManager[Any] | None = None,
        inputs: Inputs | None = None,
        change: Callable[[Operator, Any], None] | None = None,
    ) -> Run:
        """Run and record one forward and backward pass.

        Args:
            stage: from `stage()`.
            batch: which batch; seed, step: recorded in the Run, see there.
            scale: what the gradient of the loss starts from (a power of two); statistics of parameter gradients are unscaled.
            measure: whether to take the rules' measurements.
            keep: filled with what later runs are compared against; with `against` with outputs and gradients only.
            against: what this run is compared against.
            keep_gradients: leave `parameter.grad` in place (for an optimizer step).
            within: a context around the model's code, that changes how it runs.
            inputs: instead of those of the batch, from `inputs()`.
            change: given every op and its result, may write over it.

        Returns:
            The Run. An exception raised by the user's code ends it early and is told in `run.error`; results up to there stay.
        """
        run = Run(stage.precision.name, mode=stage.mode, seed=seed, step=step, loss_scale=scale)
        seed_everything(SEED + batch)
        inputs = self.inputs(stage, batch) if inputs is None else inputs
        replay = self.replays.get((batch, seed, step))
        execute = stage.execute
        if replay is None:
            replay = self.replays[(batch, seed, step)] = Replay()
            execute = replay.recording(execute)
        else:
            execute = replay.replaying(execute)
        if change is not None:
            execute = _changing(execute, change)
        compare = against.comparer(scale) if against is not None else keep.keeper() if keep is not None else None
        wanted = [m for m in self.measurements if measure and (not m.precisions or run.precision in m.precisions)]
        at_ops = [m for m in wanted if isinstance(m, Measurement)]
        tracer = Tracer(stage.model, run, execute=execute, measurements=at_ops, compare=compare)
        broken_before = nonfinite_buffers(stage.model)
        for name, tensor in named_tensors(inputs):
            tracer.leaf(tensor, "input", name)
        outputs = Outputs([])  # parts of them: whole, they would lie in memory beside the backward pass
        try:
            with torch.enable_grad(), tracer, within or nullcontext():
                outputs = self._step(stage, tracer, inputs, scale)
        except Exception as error:
            run.error = whole(error)
            run.raised = _raised(tracer, error)
            run.error_phase, run.error_at = tracer.phase, of_exception(error)
            if run.error_at is None and tracer.phase == "backward" and tracer.differentiating is not None:
                run.error_at = tracer.differentiating.location
        at_parameters = [m for m in wanted if isinstance(m, ParameterMeasurement)]
        run.parameters = parameters(stage.model, scale, at_parameters, tracer.stats_of)
        run.poisoned_buffers = sorted(nonfinite_buffers(stage.model) - broken_before)
        buffers = dict(stage.model.named_buffers())
        run.buffers = {n: s for n, s in zip(buffers, stats.measure_all(buffers.values()), strict=True) if s is not None}
        gradients = {n: p.grad for n, p in stage.model.named_parameters() if p.grad is not None}
        if run.precision in ("float64", "float32") and (batch, seed, step) == (0, 0, 0):
            sampled = ((name, stats.sample(gradient, _OF_GRADIENT)) for name, gradient in gradients.items())
            run.gradient_samples = {n: [float(x) / scale for x in values] for n, values in sampled if values is not None}
        kept = keep if keep is not None else Reference()
        kept.outputs = outputs
        if keep is not None or against is not None:
            kept.gradients = {n: part(g) / scale for n, g in gradients.items()}
        if against is not None and run.error is None:
            _compare(run, kept, against)
        elif keep is not None:
            run.output_spread = outputs.relative_spread
        if not keep_gradients:
            for parameter in stage.model.parameters():
                parameter.grad = None
        return run

    def forward(self, stage: Stage, inputs: Inputs, *, against: Reference | None = None, execute: Execute | None = None) -> Run:
        """Record one forward pass and loss of batch 0 with the reference's random draws and no statistics: for experiments.

        Args:
            stage: from `stage()`; its tensors may have been changed.
            inputs: what to feed it, from `inputs()`.
            against: what to compare every result with.
            execute: how an op is run; None for the stage's own way.
        """
        run = Run(stage.precision.name, mode=stage.mode)
        seed_everything(SEED)
        replay = self.replays.get((0, 0, 0), Replay())
        how = execute or stage.execute
        compare = against.comparer() if against is not None else None
        tracer = Tracer(stage.model, run, execute=replay.replaying(how), compare=compare, statistics=False)
        for name, tensor in named_tensors(inputs):
            tracer.leaf(tensor, "input", name)
        outputs = Outputs([])
        try:
            with torch.no_grad(), tracer, stage.precision.context(stage.device.type):
                loss, outputs = self._forward(stage, tracer, inputs)
                run.loss = float(loss)
        except Exception as error:
            run.error = whole(error)
        if against is not None:
            run.output_error = difference(outputs.parts, against.outputs.parts, against.outputs.spread).error
        return run

    def _step(self, stage: Stage, tracer: Tracer, inputs: Inputs, scale: float) -> Outputs:
        """Run it."""
        run = tracer.run
        with stage.precision.context(stage.device.type):
            loss, outputs = self._forward(stage, tracer, inputs)
        run.state = _written(tracer, stage.model)
        run.loss = float(loss.detach())
        if loss.requires_grad:
            tracer.watch_gradients(loss)
            tracer.phase = "backward"
            backward(loss, scale)
        return outputs

    def _forward(self, stage: Stage, tracer: Tracer, inputs: Inputs) -> tuple[Tensor, Outputs]:
        """Forward and loss; returns the loss and the outputs. What runs behind the last model is the loss."""
        run = tracer.run
        outputs: list[Any] = []
        behind = 0

        def returned(output: Any) -> None:
            nonlocal behind
            outputs.append(output)
            behind = len(run.ops)

        output = self.subject.play(stage.model, inputs, returned)
        for op in run.ops[behind:]:
            op.phase = "loss"
        noted = self._outputs(tracer, outputs)
        tracer.phase = "loss"
        loss = self.subject.loss(output, inputs)
        run.loss_value = tracer.value_of(loss)
        return loss, noted

    def _outputs(self, tracer: Tracer, outputs: list[Any]) -> Outputs:
        """Note what the models returned."""
        run = tracer.run
        found = [t for output in outputs for _, t in named_tensors(output) if t.is_floating_point()]
        run.outputs = [v for t in found if (v := tracer.value_of(t)) is not None]
        with undispatched(), torch.no_grad():
            if run.precision in ("float64", "float32"):
                taken = (stats.sample(t) for t in found)
                run.output_samples = [[float(x) for x in values] for values in taken if values is not None]
            return Outputs([t for t in found if stats.has_memory(t)], against=run.precision in ("float64", "float32"))


def _compare(run: Run, kept: Reference, against: Reference) -> None:
    """Outputs and parameter gradients of a run against those of the reference."""
    run.output_error = difference(kept.outputs.parts, against.outputs.parts, against.outputs.spread).error
    names = [n for n in against.gradients if n in kept.gradients]
    apart = difference([kept.gradients[n] for n in names], [against.gradients[n] for n in names])
    run.gradient_error, run.gradient_projection = apart.error, apart.projection


def _written(tracer: Tracer, model: nn.Module) -> dict[str, int]:
    """What buffers and parameters hold that are not what they were: ids of results by name."""
    held = {name: tracer.value_of(tensor) for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    return {name: i for name, i in held.items() if i is not None and tracer.run.values[i].op is not None}


def _raised(tracer: Tracer, error: Exception) -> Raised | None:
    """The exception with its place and what it was about, when it is about numbers."""
    name, tensors = tracer.last
    facts = about_numbers(error, name, tensors)
    if facts is None:
        return None
    op = next((op for op in reversed(tracer.run.ops) if op.name == name), None)
    source = tracer.run.ops[op.forward] if op is not None and op.forward is not None else op
    location = of_exception(error) or (source.location if source is not None else None)
    return Raised(op.index if op is not None else None, location, " ".join(str(error).split())[:300], facts)


def _changing(execute: Execute, change: Callable[[Operator, Any], None]) -> Execute:
    def run(func: Any, info: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        result = execute(func, info, args, kwargs)
        change(info, result)
        return result

    return run


def backward(loss: Tensor, scale: float) -> None:
    """Differentiate `scale` times the loss. A hook puts the scale in: given a gradient to start from, torch imports sympy."""
    loss.register_hook(lambda gradient: torch.full_like(gradient, scale))
    loss.backward()


def named_tensors(tree: Any, name: str = "") -> list[tuple[str, Tensor]]:
    """Every tensor in nested inputs or outputs with the path to it: dicts, lists, tuples, dataclasses."""
    if isinstance(tree, Tensor):
        return [(name, tree)]
    if isinstance(tree, Inputs):
        return named_tensors(tree.args, name) + named_tensors(tree.kwargs, name)
    if isinstance(tree, Mapping):
        inner = [(f"{name}.{key}".lstrip("."), item) for key, item in tree.items()]
    elif isinstance(tree, (list, tuple)):
        inner = [(f"{name}[{i}]", item) for i, item in enumerate(tree)]
    elif hasattr(tree, "__dataclass_fields__"):
        inner = [(f"{name}.{field}".lstrip("."), getattr(tree, field, None)) for field in tree.__dataclass_fields__]
    else:
        return []
    return [found for path, item in inner for found in named_tensors(item, path)]


def parameters(
    model: nn.Module,
    scale: float = 1.0,
    measurements: Iterable[ParameterMeasurement] = (),
    measure: Callable[[Tensor], Stats | stats.Pending | None] = stats.measure,
) -> list[Parameter]:
    """What the parameters of a model and their gradients hold now; `measure` may know gradients from when they were made."""
    owners = {id(p): m for m in model.modules() for p in m.parameters(recurse=False)}
    named = dict(model.named_parameters())
    values = stats.measure_all(named.values())
    present = {name: p.grad for name, p in named.items() if p.grad is not None}
    measured = [measure(gradient) for gradient in present.values()]
    gradients = {name: stats.resolve(found) for name, found in zip(present, measured, strict=True)}
    found = []
    for (name, p), value in zip(named.items(), values, strict=True):
        module = name.rpartition(".")[0].partition("parametrizations.")[0].rstrip(".")
        gradient = gradients.get(name)
        fan_in = p[0].numel() if p.dim() >= 2 and len(p) else None
        facts = {}
        for m in measurements:
            if (fact := m.measure(p.detach(), None if p.grad is None or p.grad.is_sparse else p.grad.detach())) is not None:
                facts[m.name] = dict(fact)
        found.append(
            Parameter(
                name,
                module,
                type(owners[id(p)]).__name__,
                tuple(p.shape),
                p.requires_grad,
                value,
                None if gradient is None else gradient.scaled(1.0 / scale),
                fan_in=fan_in,
                facts=facts,
            )
        )
    return found


def nonfinite_buffers(model: nn.Module) -> set[str]:
    """Names of the floating-point buffers that hold a NaN or an infinity."""
    return {n for n, b in model.named_buffers() if b.is_floating_point() and not bool(torch.isfinite(b).all())}
