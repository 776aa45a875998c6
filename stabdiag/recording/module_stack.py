"""Which module is running: a stack of module paths, kept by torch's global module hooks.

Global hooks leave every module's own hook tables untouched and cost one call per module. Full backward hooks are never used:
they replace tensors and break in-place and residual code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


class ModuleStack:
    """Path, class name and call number of the innermost running module of `model`; ("", class, 0) outside of it."""

    def __init__(self, model: nn.Module) -> None:
        self.paths = {id(module): path for path, module in reversed(list(model.named_modules(remove_duplicate=False)))}
        self.calls: dict[str, int] = {}
        self._root = ("", type(model).__name__, 0)
        self.stack: list[tuple[str, str, int]] = []

    @property
    def top(self) -> tuple[str, str, int]:
        """The innermost running module."""
        return self.stack[-1] if self.stack else self._root

    def _enter(self, module: nn.Module, arguments: Any) -> None:
        path = self.paths.get(id(module))
        if path is None:  # made on the fly during forward: attribute it to whoever runs it
            path = self.top[0]
        call = self.calls.get(path, -1) + 1
        self.calls[path] = call
        self.stack.append((path, type(module).__name__, call))

    def _leave(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if self.stack:
            self.stack.pop()

    @contextmanager
    def following(self) -> Iterator[None]:
        """Follow module calls while the context lasts."""
        enter = register_module_forward_pre_hook(self._enter)
        leave = register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            enter.remove()
            leave.remove()
            self.stack.clear()
