"""The Subject: a model, what to feed it and what to differentiate, with the reasons for each choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from stabdiag.trace import Location, SubjectFacts


class SubjectError(Exception):
    """The subject cannot be scanned: one sentence for its author (what was given, what was expected, how to repair it).

    `kind` is one of those of `stabdiag.errors.ScanError`; `detail` holds the user's traceback, cut to the user's frames.
    """

    def __init__(self, message: str, kind: str = "load", detail: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.detail = detail


@dataclass
class Inputs:
    """The arguments of one forward call, `model(*args, **kwargs)`, and what the loss compares its output with; None without."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    target: Any = None


Returned = Callable[[Any], None]
"""Called with what a model returned, each time the author's step has called one."""


Play = Callable[[nn.Module, Inputs, Returned], Any]
"""`play(model, inputs, returned)`: the author's step up to what the loss takes."""


def call(model: nn.Module, inputs: Inputs, returned: Returned) -> Any:
    """The plain step: one call of the model."""
    output = model(*inputs.args, **inputs.kwargs)
    returned(output)
    return output


@dataclass
class Subject:
    """What is scanned.

    Attributes:
        model: in train mode, float32 (or as its author built it).
        batch: `batch(k)` gives the inputs of batch k (k = 0, 1, …), each time the same; at most `batches` different ones.
        batches: how many different batches there are.
        loss: `loss(output, inputs)` gives the scalar that is differentiated, computed in the dtype of the output.
        play: `play(model, inputs, returned)` is the author's step up to what `loss` takes: a call of the model, or a whole
            `training_step`. What runs behind the last call of `returned` belongs to the loss.
        make_optimizer: `make_optimizer(model)`, one optimizer or several in lists, tuples and dicts; None when
            the author declared none; optimizer_from: what that is, in words;
            optimizer_at: the line that constructed it, where it is not constructed by the call.
        keeps_mode: modules stay in the train or eval mode they are in, because that is the author's.
        rebuild: `rebuild(k)` builds the model again with the seeds it sets itself offset by k; None when that is impossible.
        facts: the plain record of all this for the report.
    """

    model: nn.Module
    batch: Callable[[int], Inputs]
    loss: Callable[[Any, Inputs], torch.Tensor]
    facts: SubjectFacts
    batches: int = 1
    make_optimizer: Callable[[nn.Module], Any] | None = None
    rebuild: Callable[[int], nn.Module] | None = None
    play: Play = call
    optimizer_from: str = "make_optimizer of the file"
    keeps_mode: bool = False
    optimizer_at: Location | None = None

    def objective(self, model: nn.Module, inputs: Inputs) -> torch.Tensor:
        """The loss of a model on inputs."""
        return self.loss(self.play(model, inputs, _unseen), inputs)


def _unseen(output: Any) -> None:
    pass
