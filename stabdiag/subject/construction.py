"""Where a model was made: which line constructed each module, and which line last wrote each parameter.

An op inside `nn.Sequential` has no line of the author's on the stack, and a bad initialisation shows far from where it was
written. The lines that built the model are what the author would edit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from stabdiag.probe.eager import EagerMode
from stabdiag.probe.operator import operator
from stabdiag.probe.source import here
from stabdiag.trace import Location


@dataclass
class Construction:
    """Lines that made modules and wrote tensors, while `recording` was on."""

    modules: WeakKeyDictionary[nn.Module, Location] = field(default_factory=WeakKeyDictionary)
    written: dict[int, Location] = field(default_factory=dict)

    def of_modules(self, model: nn.Module) -> dict[str, Location | None]:
        """Module path -> where it was constructed, None where no line is known."""
        return {path: self.modules.get(module) for path, module in model.named_modules()}

    def of_parameters(self, model: nn.Module) -> dict[str, Location | None]:
        """Parameter name -> where it was last written."""
        return {name: self.written.get(_address(p)) for name, p in model.named_parameters()}


class _Writes(EagerMode):
    """Notes which line writes into which memory; the last one wins."""

    def __init__(self, written: dict[int, Location]) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self._written = written

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for i in operator(func).mutates:
            target = args[i] if i < len(args) else None
            if isinstance(target, Tensor) and (address := _address(target)) and (at := here()) is not None:
                self._written[address] = at
        return result


@contextmanager
def recording() -> Iterator[Construction]:
    """Record constructions and writes while the context lasts."""
    construction = Construction()
    original = nn.Module.__init__

    def noting(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        at = here()
        if at is not None:
            construction.modules[self] = at

    nn.Module.__init__ = noting  # type: ignore[method-assign]
    try:
        with _Writes(construction.written):
            yield construction
    finally:
        nn.Module.__init__ = original  # type: ignore[method-assign]


def _address(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0
