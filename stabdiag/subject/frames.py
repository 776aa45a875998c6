"""Whose code raised: an exception in one line, the place in the author's file, and a traceback cut to the author's frames."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

import torch

_LIBRARIES = tuple(
    str(Path(place).resolve())
    for place in (
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("purelib"),
        sysconfig.get_path("platlib"),
        Path(torch.__file__).parent,
        Path(__file__).parents[1],
    )
)


def is_library(filename: str) -> bool:
    """Whether a source file belongs to Python, an installed package or stabdiag itself."""
    if filename.startswith("<"):
        return True
    path = Path(filename).resolve()
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or str(path).startswith(_LIBRARIES)


def one_line(error: BaseException, limit: int = 240) -> str:
    """`ValueError: the first line of what it says`."""
    text = said_by(error).strip().splitlines()
    said = f"{type(error).__name__}: {text[0].strip()}" if text else type(error).__name__
    return said if len(said) <= limit else said[: limit - 1] + "…"


def said_by(error: BaseException) -> str:
    """What an exception says, "" when it cannot even say that."""
    try:
        return str(error)
    except Exception:
        return ""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was what was missing: Python's own error, CUDA's, or that of torch's CPU allocator, which has no type."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in said_by(error) or "std::bad_alloc" in said_by(error))
    )


def whole(error: BaseException, limit: int = 500) -> str:
    """`ValueError: all that it says`, on one line, cut to `limit` characters."""
    return f"{type(error).__name__}: {' '.join(said_by(error).split())[:limit]}"


def place(error: BaseException) -> str:
    """` at model.py:12`, the innermost frame of the author's, or nothing when there is none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {Path(error.filename).name}:{error.lineno}"
    frames = [frame for frame in _frames(error) if not is_library(frame.filename)]
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def user_traceback(error: BaseException, most: int = 20) -> str:
    """The traceback without the frames of libraries; of a long one (recursion) the last `most` frames."""
    frames = [frame for frame in _frames(error) if not is_library(frame.filename)]
    shown = traceback.format_list(frames[-most:])
    return "".join(["Traceback (the author's frames):\n", *shown, one_line(error, 2_000), "\n"])


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))
