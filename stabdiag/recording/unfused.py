"""Recurrent layers without fused kernels: whoever records ops or runs recorded ones again wants to see the gates.

On the CPU that is oneDNN's kernel, which can be switched off. On CUDA a cell stays fused without cuDNN too, so there layers
and cells run as torch's own decompositions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from stabdiag.recording import torch_private


@contextmanager
def unfused_recurrence() -> Iterator[None]:
    """Let `nn.RNN`, `nn.LSTM`, `nn.GRU` and their cells run op by op while the context lasts."""
    with ExitStack() as stack:
        stack.enter_context(_without_onednn())
        if torch.cuda.is_initialized() and (torch_has := torch_private.decompositions()) is not None:
            slow = decompositions(torch_has)
            stack.enter_context(torch_private.kernels_replaced(lambda name, fused: _on_cuda(fused, slow[name]), [*slow]))
        yield


@contextmanager
def _without_onednn() -> Iterator[None]:
    running: list[AbstractContextManager[None]] = []

    def enter(module: nn.Module, arguments: Any) -> None:
        if isinstance(module, nn.RNNBase):
            running.append(torch_private.without_onednn())
            running[-1].__enter__()

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(module, nn.RNNBase) and running:
            running.pop().__exit__(None, None, None)

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        while running:
            running.pop().__exit__(None, None, None)


def _on_cuda(fused: Callable[..., Any], decomposed: Callable[..., Any]) -> Callable[..., Any]:
    def run(x: Any, *rest: Any) -> Any:
        return (decomposed if x.is_cuda else fused)(x, *rest)

    return run


def decompositions(torch_has: ModuleType) -> dict[str, Callable[..., Any]]:
    """By the name under which `torch.nn` calls a fused kernel, what computes the same op by op."""

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
