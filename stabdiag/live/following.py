"""Seeing the outermost calls of a model through torch's global module hooks, which leave the model itself untouched."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from stabdiag.recording.torch_private import in_backward
from stabdiag.subject.attributes import attribute, uncompiled


class Follower(Protocol):
    """Who wants to know of outermost calls that a gradient may come back through."""

    def entered(self, path: str) -> None:
        """A call begins."""

    def left(self, path: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """It ended; `output` is None when it raised."""


def wrapped(model: nn.Module) -> nn.Module:
    """What is inside `torch.compile`, DataParallel and DistributedDataParallel."""
    while True:
        inner: nn.Module = uncompiled(model)
        if isinstance(inner, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = attribute(inner, "module", inner)
        if inner is model:
            return model
        model = inner


def paths_of(model: nn.Module, root: nn.Module) -> dict[int, str]:
    """The path of every module below `root` by identity; the wrappers around it count as the root."""
    paths = {id(module): path for path, module in reversed(list(root.named_modules(remove_duplicate=False)))}
    while model is not root:
        paths[id(model)] = ""
        inner = uncompiled(model)
        model = inner if inner is not model else attribute(model, "module", root)
    return paths


class Following:
    """The hooks. They hold the follower weakly, so that watching ends with whoever watches."""

    def __init__(self, follower: Follower, paths: Mapping[int, str]) -> None:
        self._depth = 0
        self._path = ""
        self._paths = paths
        self._thread = threading.get_ident()
        self._follower = weakref.ref(follower)
        me = weakref.ref(self)

        def enter(module: nn.Module, args: Any) -> None:
            if not torch.compiler.is_compiling() and (following := me()) is not None:
                following._enter(module)

        def leave(module: nn.Module, args: Any, *rest: Any) -> None:
            if not torch.compiler.is_compiling() and (following := me()) is not None:
                # After an exception torch leaves out the keyword arguments.
                following._leave(module, args, rest[0] if len(rest) > 1 else {}, rest[-1])

        handles = [
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, with_kwargs=True, always_call=True),
        ]
        self.close = weakref.finalize(self, _removed, handles)

    def _enter(self, module: nn.Module) -> None:
        if self._thread != threading.get_ident():
            return
        if self._depth:
            self._depth += 1
            return
        path = self._paths.get(id(module))
        # During a backward pass, activation checkpointing runs forwards again.
        if path is None or not torch.is_grad_enabled() or in_backward():
            return
        follower = self._follower()
        if follower is not None:
            self._depth, self._path = 1, path
            follower.entered(path)

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not self._depth or self._thread != threading.get_ident():
            return
        self._depth -= 1
        follower = self._follower()
        if not self._depth and follower is not None:
            follower.left(self._path, module, args, kwargs, output)


def _removed(handles: list[Any]) -> None:
    for handle in handles:
        handle.remove()
    handles.clear()
