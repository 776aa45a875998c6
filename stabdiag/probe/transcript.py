"""What the worker and the scanned code write: kept for an error's details, shown while it runs only on request."""

from __future__ import annotations

import sys
import threading
from collections import deque
from typing import IO

KEPT = 64 * 1024  # bytes, the last ones
SHOWN = 1024 * 1024  # bytes that -v passes on; a model that prints its weights fills no terminal for ever


class Transcript:
    """Reads a stream in a thread until its end.

    Args:
        stream: output and errors of the worker.
        shown: pass it on to our stderr, control characters made visible.
    """

    def __init__(self, stream: IO[bytes] | None, shown: bool) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._left = SHOWN if shown else 0
        if stream is not None:
            threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def tail(self, lines: int = 20) -> str:
        """The last lines, printable; "" when nothing was written."""
        text = printable(b"".join(self._chunks).decode("utf-8", "backslashreplace"))
        return "\n".join(text.rstrip("\n").split("\n")[-lines:]).strip("\n")

    def _read(self, stream: IO[bytes]) -> None:
        while chunk := stream.read1(4096):  # type: ignore[attr-defined]
            self._chunks.append(chunk)
            self._size += len(chunk)
            while self._size > KEPT:
                self._size -= len(self._chunks.popleft())
            if self._left > 0:
                sys.stderr.write(printable(chunk[: self._left].decode("utf-8", "backslashreplace")))
                self._left -= len(chunk)
                if self._left <= 0:
                    sys.stderr.write(f"\n(more than {SHOWN:,} bytes; the rest is not shown)\n")
                sys.stderr.flush()


def printable(text: str) -> str:
    """Control characters as escapes, so that what a model writes cannot move the cursor or rename the terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)
