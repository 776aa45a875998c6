"""A trial forward: does the model take these inputs, and if not, how far did it get and which call refused them?

It runs as the probe will run (train mode, gradients on: some models return other things in eval mode, some differentiate inside
forward) and leaves nothing behind: parameters, buffers and random numbers are put back, hooks live for the call only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from stabdiag.recording.numerical import about_numbers
from stabdiag.recording.torch_private import tree_map_only
from stabdiag.subject.seeds import seeded
from stabdiag.subject.subject import Inputs


@dataclass
class Trial:
    """What came of one forward.

    Attributes:
        output: what the model returned; None when it raised.
        error: what it raised; numerical: that is about its numbers, which a scan judges.
        progress: how many torch functions had been called by then.
        function, arguments: the torch function that raised, if one did.
        smallest: fewest positions (product of spatial sizes) of any convolution's output, None without convolutions.
    """

    output: Any = None
    error: Exception | None = None
    progress: int = 0
    numerical: bool = False
    function: str = ""
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)
    smallest: int | None = None


class _Watch(TorchFunctionMode):
    """Counts calls of torch functions and remembers the one that raised."""

    def __init__(self) -> None:
        super().__init__()
        self.trial = Trial()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.trial.progress += 1
        try:
            result = func(*args, **(kwargs or {}))
        except Exception:
            if not self.trial.function:
                self.trial.function = getattr(func, "__name__", "")
                self.trial.arguments, self.trial.keywords = args, kwargs or {}
            raise
        if getattr(func, "__name__", "") in ("conv2d", "conv3d") and args and args[0].shape[2:].numel() > 1:
            positions = result.shape[2:].numel()
            self.trial.smallest = min(positions, self.trial.smallest or positions)
        return result


def attempt(model: nn.Module, inputs: Inputs) -> Trial:
    """Run one forward on copies of the inputs."""
    watch = _Watch()
    copied = clone(inputs)
    with untouched(model), seeded(0), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about inputs that were only a guess
        try:
            with watch:
                watch.trial.output = model(*copied.args, **copied.kwargs)
        except Exception as error:
            watch.trial.error = error
            watch.trial.numerical = numerical(watch.trial, error)
    return watch.trial


def numerical(trial: Trial, error: Exception) -> bool:
    """Whether an exception is about numbers: no reason to refuse the model, but something to find."""
    values = (*trial.arguments, *trial.keywords.values())
    return about_numbers(error, trial.function, values) is not None


def numbers_break(function: Callable[[Any], Any], value: Any) -> bool:
    """Whether a function (the loss) raises for this value because of the numbers in it."""
    watch = _Watch()
    try:
        with watch:
            function(value)
    except Exception as error:
        return numerical(watch.trial, error)
    return False


def clone(inputs: Inputs) -> Inputs:
    """Copies of all tensors, so that a forward may change them."""
    return Inputs(*tree_map_only(torch.Tensor, _copy, (inputs.args, inputs.kwargs, inputs.target)))


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put parameters and buffers back as they were, in value and identity; lazy ones stay initialised."""
    kept = [
        (slots, name, tensor, None if tensor is None or is_lazy(tensor) else tensor.detach().clone())
        for module in model.modules()
        for slots in (module._parameters, module._buffers)
        for name, tensor in slots.items()
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for slots, name, tensor, value in kept:
                if tensor is None:
                    slots[name] = None
                elif value is not None:
                    tensor.copy_(value)
                    slots[name] = tensor  # type: ignore[assignment]
