"""Edited text in place of a file's own while it is imported, so that a fix can be tried without touching the file."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

_edited: dict[str, str] = {}


@contextmanager
def overlay(edited: Mapping[str, str]) -> Iterator[None]:
    """Let imports of these absolute paths see these texts while the context lasts.

    Modules that were imported from them before are forgotten meanwhile, and back afterwards; those imported meanwhile are not.
    """
    if not edited:
        yield
        return
    before, lines = _forget(edited), {path: linecache.cache.pop(path, None) for path in edited}
    own = SourceFileLoader.get_code

    def code(self: SourceFileLoader, fullname: str) -> Any:
        text = _edited.get(self.path)
        return own(self, fullname) if text is None else compile(text, self.path, "exec", dont_inherit=True)

    SourceFileLoader.get_code = code  # type: ignore[method-assign, assignment]
    _edited.update(edited)
    for path, text in edited.items():
        linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
    try:
        yield
    finally:
        _edited.clear()
        SourceFileLoader.get_code = own  # type: ignore[method-assign]
        _forget(edited)
        sys.modules.update(before)
        for path, entry in lines.items():
            linecache.cache.pop(path, None)
            if entry is not None:
                linecache.cache[path] = entry


def _forget(paths: Iterable[str]) -> dict[str, ModuleType]:
    """Take the modules that were imported from these paths out of `sys.modules`; returns them by name."""
    loaded = [(name, module) for name, module in list(sys.modules.items()) if getattr(module, "__file__", None) in {*paths}]
    return {name: sys.modules.pop(name) for name, _ in loaded}


def source_bytes(path: Path) -> bytes:
    """The text that an import of the file sees. Raises OSError when it cannot be read."""
    text = _edited.get(str(path.resolve()))
    return path.read_bytes() if text is None else text.encode()
