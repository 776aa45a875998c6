"""Manners of a guest: run someone's model on copies of its tensors and leave it bit for bit as found."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def as_found(
    model: nn.Module, dtype: torch.dtype | None = None, device: torch.device | None = None, *, share: bool = False
) -> Iterator[None]:
    """Work on copies of all parameters and buffers, floating-point ones cast to `dtype`, and put the originals back.

    With `share`, parameters are read where they are and not copied, for a forward and backward pass that writes none of them.

    Parameters keep their identity (optimizers, tied and parametrised modules go on working): only what they hold is exchanged.
    Attributes that a forward sets on its modules, train and eval mode, gradients, hooks, random state and the default dtype
    are put back too, also after an exception. What hangs on a parameter's gradient (an optimizer that steps inside the backward
    pass) does not run.
    """

    def copy(tensor: Tensor) -> Tensor:
        wanted = dtype if dtype is not None and tensor.is_floating_point() else None
        return tensor.detach().to(device=device, dtype=wanted, copy=True)

    parameters = [(p, p.data, p.grad, p.requires_grad) for p in model.parameters()]
    stepping = [(p, hooks) for p, *_ in parameters if (hooks := p._post_accumulate_grad_hooks) is not None]
    modules = list(model.modules())
    attributes = [
        (m, [(n, v, v.copy() if type(v) in (dict, OrderedDict) else None) for n, v in m.__dict__.items()]) for m in modules
    ]
    buffers: dict[int, Tensor] = {}
    with _ambient_state():
        try:
            for parameter, _ in stepping:
                parameter._post_accumulate_grad_hooks = None  # type: ignore[assignment]
            for parameter, data, _, _ in parameters:
                parameter.grad = None
                if not share:
                    parameter.data = copy(data)
            for module in modules:
                for name, buffer in module._buffers.items():
                    if buffer is not None:
                        module._buffers[name] = buffers.setdefault(id(buffer), copy(buffer))
            yield
        finally:
            for module, before in attributes:
                _put_back(module, before)
            for parameter, data, gradient, requires_grad in parameters:
                parameter.grad = None
                parameter.data = data
                parameter.grad = gradient
                parameter.requires_grad_(requires_grad)
            for parameter, hooks in stepping:
                parameter._post_accumulate_grad_hooks = hooks


def _put_back(module: nn.Module, before: list[tuple[str, Any, dict[Any, Any] | None]]) -> None:
    """Restore a module's attributes; tables keep their identity, because hook handles hold on to it."""
    module.__dict__.clear()
    for name, value, content in before:
        if content is not None:
            value.clear()
            value.update(content)
        module.__dict__[name] = value


@contextmanager
def _ambient_state() -> Iterator[None]:
    """Keep random states, the default dtype and grad mode."""
    state, python_state, numpy_state = torch.get_rng_state(), random.getstate(), np.random.get_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_rng_state(state)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)


def seed_everything(seed: int) -> None:
    """Seed torch, numpy and random, so that every precision sees the same draws."""
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` formats a stack trace for each absent device: 0.4 ms
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
