"""Optimizer steps on a staged copy of the model: what training would do in one precision.

All steps are taken on one fixed batch with the same random draws, so that the loss is one function of the weights and its curve
tells about the optimizer, not about luck. Gradient norms are computed in float64 where float32 would overflow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Any

import torch
from torch import Tensor

from stabdiag.probe.guest import seed_everything
from stabdiag.probe.optimizer import Chosen
from stabdiag.probe.precision import Emulation
from stabdiag.probe.recorder import SEED, Recorder, Stage, backward
from stabdiag.recording import torch_private
from stabdiag.trace import Run

BACKOFF = 0.5  # torch.amp.GradScaler's factor after an overflow


@dataclass(slots=True)
class Step:
    """One optimizer step.

    Attributes:
        loss: unscaled, before the step.
        gradient_norm: L2 over all parameters, unscaled, before clipping; None without gradients.
        scale: the loss scale; skipped: the step was left out because of non-finite gradients, as a GradScaler does.
        clipped_to_zero: clipping turned finite gradients into zeros.
        broke: what was not finite, "" when all was: "loss", "gradient", "parameters".
    """

    loss: float
    gradient_norm: float | None = None
    scale: float = 1.0
    skipped: bool = False
    clipped_to_zero: bool = False
    broke: str = ""


@dataclass
class Trainer:
    """Takes steps on a stage.

    Attributes:
        scale: the loss scale now; scaling: whether it follows a GradScaler's rule. torch's own scaler refuses to work on some
            devices, so the rule is here: a step with a non-finite gradient is skipped and the scale halved.
        clip: norm to which gradients are clipped as `clip_grad_norm_` does it, None for no clipping; clip_value: likewise by
            value.
        warm_up: steps over which the learning rate rises from 0.
    """

    recorder: Recorder
    stage: Stage
    chosen: Chosen
    clip: float | None = None
    clip_value: float | None = None
    warm_up: int = 0
    scaling: bool = False
    scale: float = 1.0
    steps: list[Step] = field(default_factory=list)

    def step(self, watch: Callable[[], None] = lambda: None, recorded: Run | None = None) -> Step:
        """Forward, backward and optimizer step on batch 0.

        Args:
            watch: called when gradients are final, before the step.
            recorded: the run that left its gradients in place: forward and backward have been done.
        """
        if recorded is None:
            self.chosen.zero_grad(self.stage.model)
            loss = self.loss()
            done = Step(float(loss.detach()), scale=self.scale)
            if loss.requires_grad and (isfinite(done.loss) or self.scaling):
                self.backward(loss)
        else:
            done = Step(nan if recorded.loss is None else recorded.loss, scale=self.scale)
        self.steps.append(done)
        if not isfinite(done.loss) and not self.scaling:
            done.broke = "loss"
            return done
        gradients = [p.grad for p in self.chosen.parameters if p.grad is not None]
        if not gradients:
            return done
        if self.scale != 1.0:
            torch_private.scale_(gradients, 1.0 / self.scale)
        done.gradient_norm = norm(gradients)
        if not isfinite(done.gradient_norm):
            done.broke = "gradient"
            if self.scaling:
                done.skipped, self.scale = True, self.scale * BACKOFF
            return done
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.chosen.parameters, self.clip)
            done.clipped_to_zero = done.gradient_norm > 0 and norm(gradients) == 0.0
        if self.clip_value is not None:
            torch.nn.utils.clip_grad_value_(self.chosen.parameters, self.clip_value)
        watch()
        with self._warming_up():
            self.chosen.step()
        if not isfinite(norm(self.chosen.parameters)):
            done.broke = "parameters"
        return done

    @contextmanager
    def _warming_up(self) -> Iterator[None]:
        """The learning rates of this step: a linear rise to those the optimizer has."""
        rates = [group["lr"] for group in self.chosen.groups]
        share = min(1.0, len(self.steps) / self.warm_up) if self.warm_up else 1.0
        for group, rate in zip(self.chosen.groups, rates, strict=True):
            group["lr"] = rate * share
        yield
        for group, rate in zip(self.chosen.groups, rates, strict=True):
            group["lr"] = rate

    def loss(self) -> Tensor:
        """The loss on batch 0, always with the same random draws."""
        seed_everything(SEED)
        inputs = self.recorder.inputs(self.stage, 0)
        with torch.enable_grad(), self.arithmetic(), self.stage.precision.context(self.stage.device.type):
            return self.recorder.subject.objective(self.stage.model, inputs)

    def backward(self, loss: Tensor) -> None:
        """Gradients of the scaled loss."""
        with self.arithmetic():
            backward(loss, self.scale)

    def arithmetic(self) -> AbstractContextManager[Any]:
        """How 16-bit ops run on this stage. Optimizer steps are element by element and round in any case."""
        return Emulation() if self.stage.emulate else nullcontext()


@torch.no_grad()
def norm(tensors: Sequence[Tensor]) -> float:
    """L2 norm over all elements, at least in float32, in float64 where that overflows; NaN or inf only when an element is."""
    tensors = [t.coalesce().values() if t.is_sparse else t for t in tensors]
    if not tensors:
        return 0.0
    wide = (torch.float64,) if any(t.dtype == torch.float64 for t in tensors) else (torch.float32, torch.float64)
    for dtype in wide:
        total = float(torch.stack(torch_private.norms(tensors, dtype)).double().norm())
        if isfinite(total):
            break
    return total
