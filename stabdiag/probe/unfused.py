"""Recurrent layers without oneDNN's fused kernels: whoever records ops or runs recorded ones again wants to see the gates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


@contextmanager
def unfused_recurrence() -> Iterator[None]:
    """Switch oneDNN off inside `nn.RNN`, `nn.LSTM` and `nn.GRU` while the context lasts."""
    before: list[bool] = []

    def enter(module: nn.Module, arguments: Any) -> None:
        if isinstance(module, nn.RNNBase):
            before.append(torch._C._get_mkldnn_enabled())
            torch._C._set_mkldnn_enabled(False)

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(module, nn.RNNBase) and before:
            torch._C._set_mkldnn_enabled(before.pop())

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        if before:
            torch._C._set_mkldnn_enabled(before[0])
