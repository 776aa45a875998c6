"""Optimizer steps on a staged copy of the model."""

from __future__ import annotations

import torch
from torch import nn

from stabdiag.probe.guest import seed_everything
from stabdiag.probe.recorder import SEED, Recorder, Stage
from stabdiag.subject.subject import Subject

DEFAULT_LEARNING_RATE = 1e-3


def optimizer_of(subject: Subject, model: nn.Module) -> torch.optim.Optimizer:
    """The author's optimizer, else AdamW at 1e-3."""
    if subject.make_optimizer is not None:
        return subject.make_optimizer(model)
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=DEFAULT_LEARNING_RATE)


def advance(recorder: Recorder, stage: Stage, steps: int) -> None:
    """Take bare optimizer steps on batch 0; what is not finite stops them."""
    optimizer = optimizer_of(recorder.subject, stage.model)
    for step in range(steps):
        seed_everything(SEED + step)
        inputs = recorder.inputs(stage, 0)
        with torch.enable_grad(), stage.precision.context(stage.device.type):
            loss = recorder.subject.loss(stage.model(*inputs.args, **inputs.kwargs), inputs)
        optimizer.zero_grad(set_to_none=True)
        if not loss.requires_grad or not bool(torch.isfinite(loss)):
            return
        loss.backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
