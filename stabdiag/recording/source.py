"""Which line of whose file is running: from Python frames to `Location`, at the cost of one walk up the stack per op."""

from __future__ import annotations

import linecache
import site
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

import torch

import stabdiag
from stabdiag.trace import Location

_OURS = str(Path(stabdiag.__file__).parent) + "/"
_INSTEAD_OF_TORCH = _OURS + "recording/unfused.py"
_TORCH = str(Path(torch.__file__).parent) + "/"
_PACKAGES = tuple(
    {
        sysconfig.get_path("purelib") + "/",
        sysconfig.get_path("platlib") + "/",
        *(p + "/" for p in site.getsitepackages()),
    }
)
_STANDARD = sysconfig.get_path("stdlib") + "/"


@cache
def _owner(filename: str) -> str:
    """Whose file it is: "ours", "torch", "library" or "user"."""
    if filename.startswith((_TORCH, "<frozen", "<__array_function__")) or filename == _INSTEAD_OF_TORCH:
        return "torch"
    if filename.startswith(_OURS):
        return "ours"
    if filename.startswith(_PACKAGES):
        return "library"
    if filename.startswith(_STANDARD):
        return "torch"
    return "user" if not filename.startswith("<") else "torch"


@cache
def shown(filename: str) -> str:
    """The path as it is reported: relative to the working directory or the package directory where it lies below one, POSIX."""
    for root in (str(Path.cwd()) + "/", *_PACKAGES):
        if filename.startswith(root):
            return Path(filename[len(root) :]).as_posix()
    return Path(filename).as_posix()


@cache
def _positions(code: CodeType) -> list[tuple[int | None, int | None, int | None, int | None]]:
    return list(code.co_positions())


_stand: Location | None = None
_standing: FrameType | None = None
_Site = tuple[CodeType, int, CodeType | None, int]


def _location(at: _Site) -> Location:
    return _located(at, at[0].co_filename, at[2].co_filename if at[2] is not None else "")


@cache
def _located(at: _Site, filename: str, library_filename: str) -> Location:
    """The names of the files are part of the key: code objects are equal when their instructions are, wherever they stand."""
    code, instruction, library, library_instruction = at
    line, _, column, end = _positions(code)[instruction // 2]
    line = line or code.co_firstlineno
    below = ""
    if library is not None:
        below = f"{shown(library_filename)}:{_positions(library)[library_instruction // 2][0] or library.co_firstlineno}"
    return Location(
        path=shown(filename),
        line=line,
        column=column,
        end_column=end if end is not None and column is not None and end > column else None,
        function=code.co_qualname,
        source=linecache.getline(filename, line).rstrip("\n"),
        library=below,
    )


def here(*, past_ours: bool = False) -> Location | None:
    """Where the running op was called: the innermost frame in the user's own files, else in a library, else None.

    Frames of torch, of the standard library and of this tool are passed over; the walk ends at the probe itself, so what
    started the scan is never blamed. With `past_ours` it goes on behind it: a script runs below what watches it.
    """
    frame = sys._getframe(1)
    library: CodeType | None = None
    instruction = 0
    passed_ours = True
    while frame is not None and frame is not _standing:
        code = frame.f_code
        owner = _owner(code.co_filename)
        if owner == "user":
            return _location((code, frame.f_lasti, library, instruction))
        if owner == "ours":
            if not passed_ours and not past_ours:
                break
        else:
            passed_ours = False
            if owner == "library" and library is None:
                library, instruction = code, frame.f_lasti
        frame = frame.f_back  # type: ignore[assignment]
    if _stand is not None and library is not None:
        return replace(_stand, library=_location((library, instruction, library, instruction)).library)
    return _location((library, instruction, library, instruction)) if library is not None else _stand


@contextmanager
def standing_at(location: Location | None) -> Iterator[None]:
    """Let ops that no line of the user's runs belong to this one: a captured line that is played again.

    What lies above the calling function on the stack is whoever asked for that, and no place to look at.
    """
    global _stand, _standing
    before = _stand, _standing
    _stand, _standing = location, sys._getframe(2)
    try:
        yield
    finally:
        _stand, _standing = before


def of_exception(error: BaseException) -> Location | None:
    """The innermost line of the user's own that an exception passed through; None where there is none."""
    found, at = None, error.__traceback__
    while at is not None:
        if _owner(at.tb_frame.f_code.co_filename) == "user":
            found = (at.tb_frame.f_code, at.tb_lasti, None, 0)
        at = at.tb_next
    return None if found is None else _location(found)


def callers(most: int = 8) -> list[Location]:
    """The frames in the user's own files that led here, innermost first, at most so many; [] where there is none."""
    found: list[Location] = []
    frame, passed_ours = sys._getframe(1), True
    while frame is not None and len(found) < most:
        owner = _owner(frame.f_code.co_filename)
        if owner == "user":
            found.append(_location((frame.f_code, frame.f_lasti, None, 0)))
        elif owner == "ours" and not passed_ours:
            break
        passed_ours = passed_ours and owner == "ours"
        frame = frame.f_back  # type: ignore[assignment]
    return found
