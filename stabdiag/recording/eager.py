"""Keeps torch's compiler out of a process that runs models eagerly.

torch guards its optimizers and every dispatch mode against being compiled, and imports all of `torch._dynamo` to do so: 1.7 s
of CPU time on the way to the first step, where `import torch` takes 2.1 s (`benchmarks/start.py`). In the worker a stand-in
answers what those guards ask, and `torch.compile` gives back what it was given: the ops that a compiled region hides are what a
scan is about.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from stabdiag.recording.torch_private import TorchDispatchMode

_NAME = "torch._dynamo"


class EagerMode(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """A dispatch mode that no compiled graph contains, so that it needs no guard around every op."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class _StandIn(ModuleType):
    """What `torch._dynamo` answers while nothing is compiled."""

    @staticmethod
    def disable(function: Callable[..., Any], recursive: bool = True, **options: Any) -> Callable[..., Any]:
        return function

    @staticmethod
    def graph_break(message: str = "") -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # who walks all modules, as `inspect` does, wants nothing of this one
            raise AttributeError(name)
        if sys.modules.get(_NAME) is self:
            del sys.modules[_NAME]
        return getattr(importlib.import_module(_NAME), name)


def without_compiler() -> None:
    """Let the stand-in take the compiler's place until something asks for more than a guard, and let `torch.compile` (a call, a
    decorator, `module.compile()`) leave its argument eager; call it once torch is imported."""
    sys.modules.setdefault(_NAME, _StandIn(_NAME))
    torch.compile = _eager
    torch.nn.Module.compile = lambda self, *arguments, **options: None  # type: ignore[method-assign]


def _eager(model: Any = None, **options: Any) -> Any:
    return model if model is not None else _eager
