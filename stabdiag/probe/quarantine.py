"""What the scanned code can leave behind, and how it is cleared away: temporary files, caches, processes in their own sessions.

Every process below the worker inherits an environment variable with a name of its own, by which it is found again wherever the
system shows environments (Linux); elsewhere the worker's process group is all that is ended.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

MARK = "STABDIAG_WORKER"
_CACHES = ("TMPDIR", "TEMP", "TMP", "WANDB_DIR", "WANDB_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR")
_ROUNDS = 5  # a process that starts another while it is ended is found in the next round


def environment(folder: Path, token: str) -> dict[str, str]:
    """The worker's environment: ours, with temporary files and caches below `folder`, and the mark.

    `PYTHONPATH` stays the author's; the worker finds stabdiag by the path it is given.
    """
    inside = folder / "temporary"
    inside.mkdir()
    changed = dict.fromkeys(_CACHES, str(inside)) | {MARK: token, "PYTHONUNBUFFERED": "1"}
    # Threads that wait for each other while something else has a core spin it away: ResNet beside one busy process took
    # 11 to 21 s, 3 to 5 s when waiting threads sleep, and no longer on idle cores.
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **changed}


def end(worker: subprocess.Popen[bytes], token: str, patience: float = 1.0) -> None:
    """End the worker, after `patience` seconds by force, and every process that it left."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        worker.wait(timeout=patience)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.pid, signal.SIGKILL)  # also what outlives the worker in its group
    worker.wait()
    for _ in range(_ROUNDS):
        left = _marked(token)
        for process in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        if not left:
            return


def _marked(token: str) -> list[int]:
    """Processes whose environment carries the mark; none where the system does not show it."""
    wanted = f"{MARK}={token}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def end_with_the_parent(lifeline: int, folder: Path) -> None:
    """In the worker: remove the folder and end the whole group once the parent is gone, however it went.

    The parent holds the other end of the pipe `lifeline` and never writes: reading from it returns when the parent has ended.
    """
    os.set_inheritable(lifeline, False)

    def wait() -> None:
        with contextlib.suppress(OSError):
            os.read(lifeline, 1)
        shutil.rmtree(folder, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
