"""What leaves the program: the report to stdout, files all at once, sentences to stderr."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from stabdiag.errors import UserError


def to_stdout(text: str) -> None:
    """Write the report. A reader that has seen enough (`| head`) is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout again at exit; let that flush go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def to_stderr(text: str) -> None:
    """Write a sentence for the person at the keyboard."""
    print(text, file=sys.stderr, flush=True)


def refuse_unwritable(paths: Sequence[Path]) -> None:
    """Raise UserError before any work is done when a file could not be written in the end."""
    for path in paths:
        folder = path.parent
        if not folder.is_dir():
            raise UserError(f"cannot write {path}: there is no folder {folder}; create it first")
        if path.is_dir():
            raise UserError(f"cannot write {path}: it is a folder; give a file name")
        if not os.access(path if path.exists() else folder, os.W_OK):
            raise UserError(f"cannot write {path}: permission denied")


def write_files(contents: Mapping[Path, str] | Mapping[Path, bytes]) -> None:
    """Write all files or none: each is written beside its place and moved there when all are complete.

    Raises UserError when one cannot be written.
    """
    written: dict[Path, Path] = {}
    try:
        for path, text in ((path.resolve(), text) for path, text in contents.items()):
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            written[path] = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(text.encode() if isinstance(text, str) else text)
            written[path].chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        for path, temporary in written.items():
            temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)


def append(path: Path, text: str) -> None:
    """Add to a file that others write to as well. Raises UserError when that is impossible."""
    try:
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
