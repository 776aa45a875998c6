"""Playing a program: as the subject of an ordinary recorder, so that every precision and every rule works on it unchanged."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Any

import torch
from torch import Tensor, nn

from stabdiag.live.program import Call, Goal, Leaf, Made, Own, Program, leaves_of, mapped
from stabdiag.live.tape import named
from stabdiag.probe.guest import seed_everything
from stabdiag.probe.recorder import SEED, Recorder, Stage, backward
from stabdiag.probe.training import norm
from stabdiag.recording.source import standing_at
from stabdiag.recording.torch_private import undispatched
from stabdiag.rule import measurements
from stabdiag.subject.outputs import leaves as tensors_of
from stabdiag.subject.subject import Inputs, Returned, Subject
from stabdiag.trace import SubjectFacts

_NAMES = {torch.float64: "float64", torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


@dataclass(frozen=True)
class Outcome:
    """What a step came to.

    Attributes:
        losses: one per `backward`, NaN where the loss was not seen and something is not finite.
        gradient_norm: over all parameters, unscaled.
        digest: exact fingerprint of losses and gradients, equal if and only if (nearly) they agree bit for bit.
        error: the sentence of an exception, "" when there was none.
    """

    losses: tuple[float, ...] = ()
    gradient_norm: float = nan
    digest: tuple[int, ...] = ()
    error: str = ""

    @property
    def finite(self) -> bool:
        """Whether all of it is finite."""
        return not self.error and all(isfinite(x) for x in self.losses) and isfinite(self.gradient_norm)

    @property
    def loss(self) -> float:
        """The sum of the losses; NaN where there is none."""
        return sum(self.losses) if self.losses else nan


@dataclass
class Player:
    """Plays one program on one model.

    Attributes:
        program, model: what and on what. The model is left as found. facts: what a report says about both.
        scale: of the loss, as the author's GradScaler has it.
        goals: the losses that are played, all of the program's when empty.
        compiled: compiled modules by path, called in place of what they wrap; None to run eagerly.
    """

    program: Program
    model: nn.Module
    facts: SubjectFacts
    scale: float = 1.0
    goals: Sequence[Goal] = field(default_factory=list)
    compiled: Mapping[str, nn.Module] | None = None
    _losses: list[Tensor] = field(default_factory=list, init=False)
    _rows: Tensor | None = field(default=None, init=False)
    _guesses: bool = field(default=False, init=False)
    _finite: bool = field(default=True, init=False)

    @property
    def precision(self) -> str:
        """What the author trains in, as a name of `stabdiag.trace.formats.PRECISIONS`."""
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)
        narrow = _NAMES.get(self.program.autocast) if self.program.autocast is not None else None
        return f"amp-{narrow}" if narrow and dtype == torch.float32 else _NAMES.get(dtype, "float32")

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def recorder(self, leaves: Sequence[Tensor] | None = None, device: torch.device | None = None) -> Recorder:
        """An ordinary recorder of this step, with other leaves if they are given."""
        given = self.program.leaves if leaves is None else leaves
        inputs = Inputs((), dict(zip(self.program.distinct_names, given, strict=True)))
        subject = Subject(
            self.model, lambda k: inputs, lambda output, inputs: output, self.facts, play=self._play, keeps_mode=True
        )
        return Recorder(subject, device or self.device, measurements())

    @contextmanager
    def stage(
        self,
        recorder: Recorder,
        precision: str,
        weights: Mapping[str, Tensor] | None = None,
        *,
        emulate: bool | None = None,
        share: bool = False,
    ) -> Iterator[Stage]:
        """A stage of the recorder with buffers as they were before the step, and other weights if they are given."""
        with recorder.stage(precision, emulate=emulate, share=share) as stage, self._eager():
            with torch.no_grad():
                buffers = dict(stage.model.named_buffers())
                for name, held in self.program.buffers.items():
                    buffers[name].copy_(held)
                for name, parameter in stage.model.named_parameters():
                    if weights is not None and name in weights:
                        parameter.copy_(weights[name])
            yield stage

    def outcome(
        self,
        precision: str | None = None,
        *,
        rows: Tensor | None = None,
        weights: Mapping[str, Tensor] | None = None,
        device: torch.device | None = None,
    ) -> Outcome:
        """Play the step without recording it.

        Args:
            precision: None for the author's own.
            rows: which rows of the batch, as many as it has.
            weights: by name, in place of the model's.
            device: None for the model's own.
        """
        recorder = self.recorder(None if rows is None else self.program.with_rows(rows), device)
        own = precision is None or precision == self.precision
        self._rows, self._guesses = rows, True
        try:
            with self.stage(recorder, precision or self.precision, weights, emulate=False if own else None) as stage:
                seed_everything(SEED)
                inputs = recorder.inputs(stage, 0)
                with torch.enable_grad(), stage.precision.context(stage.device.type):
                    loss = recorder.subject.objective(stage.model, inputs)
                losses = tuple(float(x) for x in self._losses)
                if loss.requires_grad:
                    backward(loss, self.scale)
                gradients = [p.grad for p in stage.model.parameters() if p.grad is not None]
                digest = tuple(_digest(t) for t in (*self._losses, *gradients))
                return Outcome(losses, norm(gradients) / self.scale, digest)
        except Exception as error:
            return Outcome(error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        finally:
            self._rows, self._guesses = None, False

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the step by parameter, unscaled, in the author's precision. Raises what the model raises."""
        recorder = self.recorder()
        with self.stage(recorder, self.precision, emulate=False) as stage:
            inputs = recorder.inputs(stage, 0)
            with torch.enable_grad(), stage.precision.context(stage.device.type):
                backward(recorder.subject.objective(stage.model, inputs), self.scale)
            return {n: p.grad / self.scale for n, p in stage.model.named_parameters() if p.grad is not None}

    def outputs_finite(self) -> bool:
        """Whether what the model returns is finite."""
        self.outcome()
        return self._finite

    def _play(self, model: nn.Module, inputs: Inputs, returned: Returned) -> Tensor:
        """Make the calls; returns the sum of the losses, or a scalar with the same gradient where they were not seen."""
        made: list[list[Tensor]] = []
        leaves = list(inputs.kwargs.values())
        self._finite = True
        modules = dict(model.named_modules()) | dict(self.compiled or {})
        own = dict(model.named_parameters()) | dict(model.named_buffers())

        def held(leaf: Any) -> Any:
            if isinstance(leaf, Made):
                return made[leaf.call][leaf.slot]
            if isinstance(leaf, Leaf):
                return leaves[leaf.index]
            return own[leaf.name] if isinstance(leaf, Own) else leaf

        for call in self._calls():
            if call.random is not None:
                call.random.restore()
            function = modules[call.module] if call.module is not None else call.function or named(call.name)
            with standing_at(call.location):
                output = function(*mapped(call.args, held), **mapped(call.kwargs, held))
            made.append([tensor for _, tensor in tensors_of(output)] if call.module is not None else _flat(output))
            if call.module is not None:
                returned(output)
                with undispatched():
                    finite = [bool(torch.isfinite(t).all()) for t in made[-1] if t.is_floating_point() and t.requires_grad]
                self._finite = all(finite) and self._finite
        goals = self.goals or self.program.goals
        if self.program.seen:
            losses = [made[goal.value.call][goal.value.slot] for goal in goals]
            self._losses = [loss.detach() for loss in losses]
            total = losses[0]
            for loss in losses[1:]:
                total = total + loss
            return total
        with standing_at(self.program.calls[-1].location):
            return self._surrogate(made)

    def _surrogate(self, made: list[list[Tensor]]) -> Tensor:
        """Σ output · gradient: it has the gradient that reached the outputs."""
        self._losses = []
        read_again = {leaf for call in self._calls() for leaf in leaves_of((call.args, call.kwargs)) if isinstance(leaf, Made)}
        total: Tensor | None = None
        for number, (call, tensors) in enumerate(zip(self._calls(), made, strict=True)):
            for slot, gradient in call.gradients.items():
                if Made(number, slot) in read_again:
                    continue  # its gradient comes back through the later call
                output = tensors[slot]
                if self._rows is not None and gradient.dim() and gradient.shape[0] == self.program.batch:
                    gradient = gradient.index_select(0, self._rows.to(gradient.device))
                if self._guesses:  # it came back from a loss of broken outputs, and nobody knows what another output would get
                    gradient = gradient.where(torch.isfinite(gradient), torch.full_like(gradient, 1.0 / gradient.numel()))
                part = (output * gradient.to(output.device, output.dtype)).sum() / self.scale
                total = part if total is None else total + part
        if total is None:
            raise ValueError("no gradient reached the outputs of the model")
        return total

    def _eager(self) -> AbstractContextManager[Any]:
        """Compiled functions run as their author wrote them; where nothing was compiled, the compiler is not imported."""
        eager = self.compiled is None and "torch._dynamo" in sys.modules
        return torch.compiler.set_stance("force_eager") if eager else nullcontext()

    def _calls(self) -> list[Call]:
        """The calls that the goals need; all of them where the loss was not seen."""
        if not self.program.seen or not self.goals:
            return self.program.calls
        return self.program.calls[: 1 + max(goal.value.call for goal in self.goals)]


def _flat(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [t for item in output for t in _flat(item)] if isinstance(output, (list, tuple)) else []


def _digest(tensor: Tensor) -> int:
    """A sum over the bits: exact, and the same for the same bits."""
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    words = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    bits = tensor.detach().contiguous().view(-1).view(words).long()
    return int((bits * torch.arange(1, 1 + bits.numel(), device=bits.device)).sum())
