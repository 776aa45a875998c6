"""Recurrent layers without fused kernels: whoever records ops or runs recorded ones again wants to see the gates.

On the CPU that is oneDNN's kernel, which can be switched off. On CUDA a cell stays fused without cuDNN too, so there layers
and cells run as torch's own decompositions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


@contextmanager
def unfused_recurrence() -> Iterator[None]:
    """Let `nn.RNN`, `nn.LSTM`, `nn.GRU` and their cells run op by op while the context lasts."""
    with ExitStack() as stack:
        stack.enter_context(_without_onednn())
        if torch.cuda.is_initialized():
            for name, decomposed in decompositions().items():
                stack.enter_context(mock.patch.object(torch._VF, name, _on_cuda(name, decomposed), create=True))
        yield


@contextmanager
def _without_onednn() -> Iterator[None]:
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


def _on_cuda(name: str, decomposed: Callable[..., Any]) -> Callable[..., Any]:
    fused = getattr(torch._C._VariableFunctions, name)

    def run(x: Any, *rest: Any) -> Any:
        return (decomposed if x.is_cuda else fused)(x, *rest)

    return run


def decompositions() -> dict[str, Callable[..., Any]]:
    """By the name under which `torch.nn` calls a fused kernel, what computes the same op by op."""
    from torch._decomp import decompositions as torch_has  # imports much, which the CPU can do without

    def layer(whole: Callable[..., Any], packed: Callable[..., Any]) -> Callable[..., Any]:
        def run(x: Any, *rest: Any) -> Any:
            is_packed = isinstance(rest[2], (list, tuple))  # batch sizes come first, so the weights come third
            return (packed if is_packed else whole)(x, *rest)

        return run

    def lstm_cell(x: Any, hidden: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
        h, c = hidden
        return torch_has.lstm_cell(F.linear(x, w_ih, b_ih), h, c, w_hh, b_hh, None, 1)

    def gru_cell(x: Any, hidden: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
        return torch_has.gru_cell_data(x, hidden, w_ih, b_ih, w_hh, b_hh)

    return {
        "lstm": layer(torch_has.lstm_impl, torch_has.lstm_data_impl),
        "gru": layer(torch_has.gru_impl, torch_has.gru_impl_data),
        "rnn_tanh": layer(torch_has.rnn_tanh_input, torch_has.rnn_tanh_data),
        "rnn_relu": layer(torch_has.rnn_relu_input, torch_has.rnn_relu_data),
        "lstm_cell": lstm_cell,
        "gru_cell": gru_cell,
    }
