"""The channel from the worker to the parent: one JSON message per line on a pipe of our own.

The scanned code shares the worker's process and its open files, so a message counts only with the token that the parent put
into the request; the worker closes the pipe to programs that the scanned code starts. A message is one write below the size
that pipes write in one piece, so two writers cannot mix.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import threading
from typing import Any

MESSAGE_LIMIT = select.PIPE_BUF if hasattr(select, "PIPE_BUF") else 512


class Sender:
    """The worker's end.

    Args:
        descriptor: of the pipe, as the parent opened it for this process.
        token: what makes a message ours.
    """

    def __init__(self, descriptor: int, token: str) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._token = token

    def send(self, **message: Any) -> None:
        """Send one message; long texts are cut. Raises OSError where the scanned code closed the pipe."""
        line = self._line(message)
        for key in ("detail", "message"):
            if len(line) > MESSAGE_LIMIT and key in message.get("error", {}):
                text = message["error"][key]
                message["error"][key] = text[: max(0, len(text) - (len(line) - MESSAGE_LIMIT) - 16)]
                line = self._line(message)
        os.write(self._descriptor, line)

    def _line(self, message: dict[str, Any]) -> bytes:
        return json.dumps({"token": self._token, **message}).encode() + b"\n"


class Receiver:
    """The parent's end: a thread reads, so that no wait of the parent is without a deadline."""

    def __init__(self, descriptor: int, token: str) -> None:
        self._token = token
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, args=(descriptor,), daemon=True).start()

    def get(self, timeout: float) -> dict[str, Any] | None:
        """The next message, None at the end of the stream. Raises queue.Empty after `timeout` seconds."""
        return self._messages.get(timeout=timeout)

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as stream:
            for line in stream:
                with contextlib.suppress(ValueError, RecursionError):
                    message = json.loads(line)
                    if isinstance(message, dict) and message.get("token") == self._token:
                        self._messages.put(message)
        self._messages.put(None)
