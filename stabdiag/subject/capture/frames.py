"""What the author calls things: variables of the running frames, and attributes of the objects in them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from torch import Tensor, nn

from stabdiag.subject.frames import is_library


def variables() -> Iterator[tuple[str, Any]]:
    """Names and values in the frames on the stack, innermost first: locals, what `self` holds, the globals of each file."""
    seen: set[int] = set()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not frame.f_code.co_filename.startswith("<"):
            for name, value in list(frame.f_locals.items()):
                yield from _named(name, value, seen)
            if not is_library(frame.f_code.co_filename) and id(frame.f_globals) not in seen:
                seen.add(id(frame.f_globals))
                for name, value in list(frame.f_globals.items()):
                    yield from _named(name, value, seen)
        frame = frame.f_back


def _named(name: str, value: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    yield name, value
    if isinstance(value, Tensor | nn.Module | type) or id(value) in seen:
        return
    if isinstance(value, dict):
        yield from ((f"{key}", item) for key, item in list(value.items())[:64] if isinstance(key, str))
    elif isinstance(value, list | tuple) and len(value) <= 64:
        yield from ((f"{name}[{index}]", item) for index, item in enumerate(value))
    elif name == "self" or name == "trainer":
        seen.add(id(value))
        yield from list(getattr(value, "__dict__", {}).items())


def tensors_by_identity() -> dict[int, str]:
    """The author's name of each tensor in sight, the innermost where there are several."""
    found: dict[int, str] = {}
    for name, value in variables():
        if isinstance(value, Tensor):
            found.setdefault(id(value), name)
    return found


def modules_in_sight() -> list[tuple[str, nn.Module]]:
    """Every module in sight with the author's name for it, innermost first."""
    found: dict[int, tuple[str, nn.Module]] = {}
    for name, value in variables():
        if isinstance(value, nn.Module):
            found.setdefault(id(value), (name, value))
    return list(found.values())
