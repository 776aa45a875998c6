"""The parent's side of the worker process: start it, follow it, end it. Imports no torch.

Whatever the user's code does (exit, crash, hang, exhaust memory), the outcome is the Trace so far and one sentence.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from stabdiag.errors import ScanError
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Trace
from stabdiag.trace.file import loads

_HEARTBEAT = 0.5  # seconds between calls of `progress`, so that what it raises (Ctrl-C) ends the worker soon


def probe_in_worker(
    request: ScanRequest, progress: Callable[[str, float], None] | None = None
) -> tuple[Trace | None, ScanError | None]:
    """Probe in a process of its own. Returns what is known and why there is no more; the error is None for a whole scan."""
    with tempfile.TemporaryDirectory(prefix="stabdiag-") as folder:
        asked, answer = Path(folder, "request.json"), Path(folder, "trace.pickle")
        asked.write_text(json.dumps(request.to_dict()), encoding="utf-8")
        command = [sys.executable, "-m", "stabdiag.probe.worker", str(asked), str(answer)]
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p), PYTHONUNBUFFERED="1")
        # Threads that wait for each other while something else has a core spin it away: ResNet beside one busy process took
        # 11 to 21 s, 3 to 5 s when waiting threads sleep, and no longer on idle cores.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        worker = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        try:
            error = _follow(worker, request, progress)
        finally:
            _end(worker)
        trace = loads(answer.read_bytes()) if answer.exists() else None
    return trace, error


def _follow(
    worker: subprocess.Popen[bytes], request: ScanRequest, progress: Callable[[str, float], None] | None
) -> ScanError | None:
    """Read messages until the worker is done, ends by itself, or its time is up.

    Ctrl-C is passed on: training steps end early and are reported, in anything else the worker ends. A second one ends it all.
    """
    messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
    assert worker.stdout is not None
    threading.Thread(target=_read, args=(worker.stdout, messages), daemon=True).start()
    deadline = time.monotonic() + request.timeout if request.timeout else None
    try:
        return _until_done(worker, messages, request, deadline, progress)
    except KeyboardInterrupt:
        worker.send_signal(signal.SIGINT)
        return _until_done(worker, messages, request, deadline, progress)


def _until_done(
    worker: subprocess.Popen[bytes],
    messages: queue.Queue[dict[str, Any] | None],
    request: ScanRequest,
    deadline: float | None,
    progress: Callable[[str, float], None] | None,
) -> ScanError | None:
    doing, share = "starting", 0.0
    while True:
        try:
            message = messages.get(timeout=_HEARTBEAT)
        except queue.Empty:
            if deadline is None or time.monotonic() < deadline:
                if progress is not None:
                    progress(doing, share)
                continue
            return ScanError(
                "timeout",
                f"the scan was still busy ({doing}) after {request.timeout:g} s: give a smaller input with --input, "
                "fewer precisions with "
                "-p, or more time with --timeout",
            )
        if message is None:
            return _crashed(worker, doing)
        if "error" in message:
            return ScanError(**message["error"])
        if message.get("done"):
            return None
        doing, share = message["progress"], message["share"]
        if progress is not None:
            progress(doing, share)


def _read(stream: IO[bytes], messages: queue.Queue[dict[str, Any] | None]) -> None:
    for line in stream:
        with contextlib.suppress(ValueError):
            messages.put(json.loads(line))
    messages.put(None)


def _crashed(worker: subprocess.Popen[bytes], doing: str) -> ScanError:
    code = worker.wait()
    if code in (130, -signal.SIGINT):
        raise KeyboardInterrupt
    if code < 0:
        name = signal.Signals(-code).name
        hint = "it may have run out of memory" if name == "SIGKILL" else "a native extension of the model may be at fault"
        return ScanError("crash", f"the worker was ended by {name} during {doing}: {hint}; run the model alone to see")
    return ScanError(
        "crash", f"the model's code ended the worker with exit status {code} during {doing}: it must not call os._exit"
    )


def _end(worker: subprocess.Popen[bytes]) -> None:
    """End the worker and everything it started."""
    if worker.poll() is None:
        try:
            worker.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
    if worker.stdout is not None:
        worker.stdout.close()
