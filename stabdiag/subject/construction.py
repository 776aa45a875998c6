"""Where a model and its data were made: which line constructed each module, and which line last wrote each tensor.

An op inside `nn.Sequential` has no line of the author's on the stack, and a bad initialisation or bad data show far from where
they were written. The lines that built them are what the author would edit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import ReferenceType, ref

from torch import Tensor, nn

from stabdiag.recording.eager import EagerMode
from stabdiag.recording.operator import operator
from stabdiag.recording.source import callers, here
from stabdiag.recording.torch_private import is_innermost
from stabdiag.trace import Location, Parameter

_COPIES = ("clone", "_to_copy")


@dataclass
class Construction:
    """Lines that made modules and wrote tensors, while `recording` was on.

    Attributes:
        modules: by identity, each module and where it was constructed: its own `__hash__` may need what it lacks until then.
        written: by address of the memory, the frames of the author's in which its content was made, innermost first. A copy
            keeps those of its source; `copied` holds the line that copied it.
        loaded: addresses of the memory that `load_state_dict` filled last.
    """

    modules: dict[int, tuple[ReferenceType[nn.Module], Location]] = field(default_factory=dict)
    written: dict[int, list[Location]] = field(default_factory=dict)
    copied: dict[int, Location] = field(default_factory=dict)
    loaded: set[int] = field(default_factory=set)
    _writes: _Writes | None = None

    def close(self) -> None:
        """Note no further writes: what an optimizer does to weights is not their construction."""
        mode, self._writes = self._writes, None
        if mode is not None:
            mode.on = False
            if is_innermost(mode):
                mode.__exit__(None, None, None)  # type: ignore[no-untyped-call, unused-ignore]

    def of_modules(self, model: nn.Module) -> dict[str, Location | None]:
        """Module path -> where it was constructed, None where no line is known."""
        return {path: self._constructed(module) for path, module in model.named_modules()}

    def _constructed(self, module: nn.Module) -> Location | None:
        made, at = self.modules.get(id(module), (None, None))
        return at if made is not None and made() is module else None

    def locate(self, parameter: Parameter, tensor: Tensor) -> None:
        """Fill in where the content of a parameter comes from."""
        address = _address(tensor)
        frames = self.written.get(address, [])
        parameter.initialised_at = next(iter(frames), None)
        parameter.initialised_for = next((at for at in frames if at.function != frames[0].function), None)
        parameter.copied_at = self.copied.get(address)
        parameter.loaded = address in self.loaded

    def outermost(self, tensor: Tensor) -> Location | None:
        """The line of the function that was asked for a tensor in which its content was made."""
        frames = self.written.get(_address(tensor), [])
        return frames[-1] if frames else None


class _Writes(EagerMode):
    """Notes which line makes the content of which memory; the last one wins."""

    def __init__(self, construction: Construction) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self._construction = construction
        self.on = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.on:
            return result
        info = operator(func)
        targets = [args[i] for i in info.mutates if i < len(args)] if info.mutates else [result]
        for target in targets:
            if not isinstance(target, Tensor) or not (address := _address(target)):
                continue
            if info.name in _COPIES:
                self._copy(args[0], address)
            elif info.mutates or all(_address(a) != address for a in args if isinstance(a, Tensor)):
                self._note(address)
        return result

    def _note(self, address: int) -> None:
        frames = callers() or [at for at in (here(),) if at is not None]
        if frames:
            self._construction.loaded.discard(address)
            self._construction.written[address] = frames
            self._construction.copied.pop(address, None)

    def _copy(self, source: Any, address: int) -> None:
        known = self._construction.written.get(_address(source)) if isinstance(source, Tensor) else None
        if known is None:
            self._note(address)
            return
        self._construction.written[address] = known
        if frames := callers(1):
            self._construction.copied[address] = frames[0]


@contextmanager
def recording() -> Iterator[Construction]:
    """Record constructions and writes while the context lasts."""
    construction = Construction()
    original = nn.Module.__init__

    def noting(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        at = here()
        if at is not None:
            construction.modules[id(self)] = ref(self), at

    def loading(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        outcome = load(self, *args, **kwargs)
        construction.loaded |= {_address(parameter) for parameter in self.parameters()}
        return outcome

    load = nn.Module.load_state_dict
    nn.Module.__init__, nn.Module.load_state_dict = noting, loading  # type: ignore[method-assign]
    try:
        construction._writes = _Writes(construction)
        construction._writes.__enter__()  # type: ignore[no-untyped-call, unused-ignore]
        yield construction
    finally:
        construction.close()
        nn.Module.__init__, nn.Module.load_state_dict = original, load  # type: ignore[method-assign]


def _address(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0
