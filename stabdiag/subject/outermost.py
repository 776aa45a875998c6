"""Following the models that a step calls: what each outermost call of a module with parameters returns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from stabdiag.subject.subject import Returned


@contextmanager
def watching(returned: Returned) -> Iterator[None]:
    """Tell `returned` each output of a module with parameters that no other such module called."""
    depth = 0

    def enter(module: nn.Module, arguments: Any) -> None:
        nonlocal depth
        depth += _has_parameters(module)

    def leave(module: nn.Module, arguments: Any, output: Any) -> None:
        nonlocal depth
        if _has_parameters(module):
            depth -= 1
            if depth == 0:
                returned(output)

    handles = register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
