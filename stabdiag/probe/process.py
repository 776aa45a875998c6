"""The parent's side of the worker process: start it, follow it, end it. Imports no torch.

Whatever the user's code does (exit, crash, hang, exhaust memory), the outcome is the Trace so far and one sentence, every wait
has a deadline, and nothing of it outlives the scan.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import stabdiag
from stabdiag.errors import ScanError
from stabdiag.probe import quarantine
from stabdiag.probe.channel import Receiver
from stabdiag.probe.transcript import Transcript
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Trace
from stabdiag.trace.file import loads

_HEARTBEAT = 0.5  # seconds between calls of `progress`, so that what it raises (Ctrl-C) ends the worker soon
_AFTER_INTERRUPT = 20.0  # seconds in which training steps may end early and be reported
_SWALLOWED = 74  # exit status of a worker whose channel the scanned code closed
# With -P nothing is imported from the working directory: a `types.py` there is not ours. What Python would find only by the
# parent's path (an installation on PYTHONPATH, a checkout) is appended, where it can hide nothing.
_START = "import sys; sys.path += [p for p in {path!r} if p not in sys.path]; from stabdiag.probe.worker import main; main()"

Progress = Callable[[str, float], None]


def probe_in_worker(request: ScanRequest, progress: Progress | None = None) -> tuple[Trace | None, ScanError | None]:
    """Probe in a process of its own. Returns what is known and why there is no more; the error is None for a whole scan."""
    try:
        with tempfile.TemporaryDirectory(prefix="stabdiag-", ignore_cleanup_errors=True) as folder:
            return _probed(request, progress, Path(folder))
    except OSError as error:
        where = error.filename or tempfile.gettempdir()
        return None, ScanError("internal", f"cannot write {where}: {error.strerror or error}; set TMPDIR to a folder with room")


def _probed(request: ScanRequest, progress: Progress | None, folder: Path) -> tuple[Trace | None, ScanError | None]:
    asked, answer, token = folder / "request.json", folder / "trace.pickle", secrets.token_hex(16)
    asked.write_text(json.dumps({"token": token, "request": request.to_dict()}), encoding="utf-8")
    messages, to_us = os.pipe()
    lifeline, ours = os.pipe()  # the worker notices when our end of it is gone
    ends = {to_us, lifeline}
    try:
        path = [str(Path(stabdiag.__file__).parents[1]), *(p for p in sys.path if p and Path(p) != Path.cwd())]
        command = [sys.executable, "-P", "-c", _START.format(path=path), str(asked), str(answer), str(to_us), str(lifeline)]
        worker = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=quarantine.environment(folder, token),
            start_new_session=True,
            pass_fds=tuple(ends),
        )
    finally:
        for descriptor in ends:
            os.close(descriptor)
    transcript = Transcript(worker.stdout, shown=request.verbose or request.script is not None)
    following = _Following(worker, Receiver(messages, token), request, progress)
    try:
        error = following.outcome()
    finally:
        quarantine.end(worker, token)
        os.close(ours)
    if error is not None and (said := transcript.tail()):
        error.detail = "\n".join(part for part in (error.detail.rstrip(), "It wrote:", said) if part)
    trace = _read(answer)
    if trace is None and error is None:
        error = ScanError("internal", "the worker ended without a trace; run again with -v and report what it wrote")
    return trace, error


def _read(answer: Path) -> Trace | None:
    """The trace, None where there is none or what is there is none: the scanned code can write into the folder, too."""
    try:
        return loads(answer.read_bytes())
    except FileNotFoundError:
        return None
    except Exception:  # whatever unpickling someone's bytes may raise
        return None


class _Following:
    """Reads messages until the worker is done, ends by itself, or its time is up."""

    def __init__(
        self, worker: subprocess.Popen[bytes], messages: Receiver, request: ScanRequest, progress: Progress | None
    ) -> None:
        self._worker, self._messages, self._request = worker, messages, request
        self._progress = progress or (lambda doing, share: None)
        self._deadline = time.monotonic() + request.timeout if request.timeout else None
        self._doing, self._share = "starting", 0.0

    def outcome(self) -> ScanError | None:
        """None for a whole scan. Ctrl-C is passed on: training steps end early and are reported; a second one ends it all.

        Raises KeyboardInterrupt when the worker ended because of it.
        """
        try:
            return self._until_done(interrupted=False)
        except KeyboardInterrupt:
            with contextlib.suppress(ProcessLookupError):
                self._worker.send_signal(signal.SIGINT)
            latest = time.monotonic() + _AFTER_INTERRUPT
            self._deadline = min(self._deadline or latest, latest)
            return self._until_done(interrupted=True)

    def _until_done(self, interrupted: bool) -> ScanError | None:
        while True:
            try:
                message = self._messages.get(_HEARTBEAT)
            except queue.Empty:
                if self._worker.poll() is not None:  # a process it left may hold the pipe open
                    return self._ended(interrupted)
                if self._deadline is not None and time.monotonic() > self._deadline:
                    if interrupted:
                        raise KeyboardInterrupt from None
                    return self._late()
                if not interrupted:
                    self._progress(self._doing, self._share)
                continue
            if message is None:
                return self._ended(interrupted)
            if "error" in message:
                return ScanError(**message["error"])
            if message.get("done"):
                return None
            self._doing, self._share = message["progress"], message["share"]
            if not interrupted:
                self._progress(self._doing, self._share)

    def _late(self) -> ScanError:
        return ScanError(
            "timeout",
            f"the scan was still busy ({self._doing}) after {self._request.timeout:g} s: give a smaller input with --input, "
            "fewer precisions with -p, or more time with --timeout",
        )

    def _ended(self, interrupted: bool) -> ScanError:
        """Why the worker ended before it was done. Raises KeyboardInterrupt when Ctrl-C ended it."""
        try:
            code = self._worker.wait(timeout=_HEARTBEAT)
        except subprocess.TimeoutExpired:  # it closed its end of the channel and went on
            code = _SWALLOWED
        if interrupted:
            raise KeyboardInterrupt
        if code == _SWALLOWED:
            return ScanError(
                "crash",
                f"the model's code closed files of the worker during {self._doing}: it must leave open what it did not open",
            )
        if code in (130, -signal.SIGINT):
            return ScanError("crash", f"the model's code raised KeyboardInterrupt during {self._doing}: remove that to scan it")
        if code < 0:
            name = signal.Signals(-code).name
            hint = "a native extension of the model may be at fault"
            if name == "SIGKILL":
                hint = "something outside ended it, most likely the system for want of memory"
            return ScanError(
                "crash", f"the worker was ended by {name} during {self._doing}: {hint}; run the model alone to see"
            )
        return ScanError("crash", f"the model's code ended the worker with exit status {code} during {self._doing}")
