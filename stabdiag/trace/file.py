"""A Trace as bytes, for the way from the worker to the parent.

A pickle, because a trace of a recurrent model has a million numbers and JSON took longer than the probe itself (38 s beside 8
for a GRU over 60 steps under the profiler, 3 s this way). It is read with nothing but the classes of `stabdiag.trace` allowed:
what the scanned model left in the file cannot run code in the parent.
"""

from __future__ import annotations

import gc
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

from stabdiag import trace as border
from stabdiag.trace import Run, Trace, experiments

_PLAIN = ("bool", "int", "float", "complex", "str", "tuple", "list", "dict", "set", "frozenset")
_OURS = {
    (kind.__module__, name)
    for names in (vars(border), vars(experiments))
    for name, kind in names.items()
    if isinstance(kind, type) and is_dataclass(kind)
}


class _Writer(pickle.Pickler):
    """Turns what only looks like a plain number or tuple (NumPy scalars, `torch.Size`) into one, and leaves caches behind."""

    def reducer_override(self, item: Any) -> Any:
        if isinstance(item, (Run, Trace)):  # without what was derived from them
            return type(item), tuple(getattr(item, f.name) for f in fields(item) if f.init)
        if isinstance(item, type) or (type(item).__module__, type(item).__name__) in _OURS:
            return NotImplemented
        if hasattr(item, "tolist"):
            item = item.tolist()
        kinds: tuple[Callable[[Any], Any], ...] = (bool, int, float, str, list, dict)
        for kind in kinds:
            if isinstance(item, kind):  # type: ignore[arg-type]
                return kind, (kind(item),)
        return (tuple, (list(item),)) if isinstance(item, tuple) else NotImplemented


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # By exact name: a dotted one would lead through a function of the module to all that Python can run.
        if (module, name) in _OURS or (module == "builtins" and name in _PLAIN):
            return super().find_class(module, name)
        raise ValueError(f"a trace holds plain numbers and the classes of {border.__name__}, not {module}.{name}")


def dumps(trace: Trace) -> bytes:
    """The trace as bytes."""
    file = io.BytesIO()
    with _not_collecting():
        _Writer(file, protocol=pickle.HIGHEST_PROTOCOL).dump(trace)
    return file.getvalue()


def loads(data: bytes) -> Trace:
    """The trace again. Raises ValueError or `pickle.UnpicklingError` for anything else."""
    with _not_collecting():
        trace = _Reader(io.BytesIO(data)).load()
    if not isinstance(trace, Trace):
        raise ValueError(f"a trace was expected, this is a {type(trace).__name__}")
    return trace


@contextmanager
def _not_collecting() -> Iterator[None]:
    """Without looking for reference cycles among a million new objects, none of which is in one."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
