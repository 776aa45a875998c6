"""Subjects for tests of training steps: one live model, its batch, loss and optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stabdiag.subject.subject import Inputs, Subject
from stabdiag.trace import SubjectFacts


def mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


def batch(size: int = 32) -> Tensor:
    return torch.randn(size, 8, generator=torch.Generator().manual_seed(1))


def classes(output: Tensor) -> Tensor:
    return nn.functional.cross_entropy(output, torch.arange(len(output)) % 4)


def subject(
    make: Callable[[int], nn.Module] = mlp,
    loss: Callable[[Tensor], Tensor] = classes,
    optimizer: Callable[[nn.Module], Any] | None = None,
    x: Tensor | None = None,
) -> Subject:
    """A subject; with `rebuild`, so that seeds differ."""
    data = batch() if x is None else x
    facts = SubjectFacts("model.py", "", 0, "", "", declared=["optimizer"] if optimizer else [])
    return Subject(
        make(0), lambda k: Inputs((data,)), lambda output, _: loss(output), facts, make_optimizer=optimizer, rebuild=make
    )
