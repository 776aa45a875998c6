"""Edited text in place of a file's own while it is imported, so that a fix can be tried without touching the file."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

_edited: dict[str, str] = {}
_get_code = SourceFileLoader.get_code


def install(edited: Mapping[str, str]) -> None:
    """Let imports of these absolute paths see these texts, until the next call; what was imported from them is forgotten."""
    changed = {*_edited, *edited}
    for name in [n for n, module in list(sys.modules.items()) if getattr(module, "__file__", None) in changed]:
        del sys.modules[name]
    for path in _edited:
        linecache.cache.pop(path, None)
    _edited.clear()
    _edited.update(edited)
    for path, text in edited.items():
        linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
    if not edited or SourceFileLoader.get_code is not _get_code:
        return

    def code(self: SourceFileLoader, fullname: str) -> Any:
        text = _edited.get(self.path)
        return _get_code(self, fullname) if text is None else compile(text, self.path, "exec", dont_inherit=True)

    SourceFileLoader.get_code = code  # type: ignore[method-assign, assignment]


def source_bytes(path: Path) -> bytes:
    """The text that an import of the file sees. Raises OSError when it cannot be read."""
    text = _edited.get(str(path.resolve()))
    return path.read_bytes() if text is None else text.encode()
