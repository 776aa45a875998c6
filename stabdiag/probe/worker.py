"""The worker process: loads the subject, probes it, and writes the Trace to a file. Started by `stabdiag.probe.process`.

What it tells the parent goes through a channel of its own (`stabdiag.probe.channel`); what the user's code prints goes to the
error stream. The Trace is written after each part of the probe: a crash loses the part that crashed, not what was known before.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

from stabdiag.probe import quarantine
from stabdiag.probe.channel import Sender
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Trace

_CHANNEL_CLOSED = 74


def main() -> None:
    """Entry point, with the request's file, the trace's file, and the descriptors of the channel and of the lifeline."""
    asked, answer, channel, lifeline = sys.argv[1:5]
    content = json.loads(Path(asked).read_text(encoding="utf-8"))
    Path(asked).unlink()  # with the token in it, which is not for the user's code to read
    request = ScanRequest.from_dict(content["request"])
    sender = Sender(int(channel), content["token"])
    quarantine.end_with_the_parent(int(lifeline), Path(asked).parent)
    if not request.verbose:
        warnings.simplefilter("ignore")
    # A model that plain Python just manages runs here too: our frames stand between those of its modules.
    sys.setrecursionlimit(sys.getrecursionlimit() * 3 // 2)
    try:
        _tell(sender, **_outcome(request, Path(answer), sender))
        sys.stderr.flush()
    except BaseException:  # the user's code replaced the stream, or is at its tricks still
        os._exit(_CHANNEL_CLOSED)
    os._exit(0)  # threads and exit handlers of the user's code must not keep the scan from ending


def _outcome(request: ScanRequest, answer: Path, sender: Sender) -> dict[str, Any]:
    """Probe; the last message for the parent."""
    try:
        _probe(request, answer, sender)
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException as error:
        return {"error": _described(error)}
    return {"done": True}


def _probe(request: ScanRequest, target: Path, sender: Sender) -> None:
    from stabdiag.probe.here import probe_file
    from stabdiag.recording.eager import without_compiler
    from stabdiag.trace.file import dumps

    def progress(what: str, share: float) -> None:
        _tell(sender, progress=what, share=round(share, 3))

    def save(trace: Trace) -> None:
        part = target.with_suffix(".part")
        part.write_bytes(dumps(trace))
        part.replace(target)

    def stubborn() -> None:
        _tell(sender, done=True)
        os._exit(0)

    _limit_memory(request.memory_limit)
    without_compiler()
    probe_file(request, progress, save, stubborn)


def _limit_memory(limit: int | None) -> None:
    """Limit the address space, by default to what the process has and nine tenths of what the machine has free: a model that
    needs more fails with an error of its own instead of taking the machine along. Raises SubjectError when nothing could run.

    Not where CUDA is: its driver reserves more address space than any machine has memory.
    """
    import torch

    from stabdiag.subject.subject import SubjectError

    taken = _size_from("/proc/self/status", "VmSize")
    if limit is None:
        free = _size_from("/proc/meminfo", "MemAvailable")
        if torch.cuda.is_available() or not free or not taken:
            return
        limit = taken + free * 9 // 10
    elif limit <= taken:
        raise SubjectError(
            f"--memory-limit is {limit / 2**30:.2g} GiB, less than the {taken / 2**30:.2g} GiB of address space that PyTorch "
            "takes before any model is built; give more.",
            "usage",
        )
    resource.setrlimit(resource.RLIMIT_AS, (min(limit, 2**63 - 1), resource.RLIM_INFINITY))


def _size_from(file: str, key: str) -> int:
    """Bytes of a `key:  n kB` line; 0 where the system has no such file."""
    try:
        lines = Path(file).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)


def _described(error: BaseException) -> dict[str, Any]:
    from stabdiag.subject.frames import one_line, out_of_memory, place, user_traceback
    from stabdiag.subject.subject import SubjectError

    kind, message = "internal", f"stabdiag failed with {one_line(error)}; -v shows where"
    detail = traceback.format_exc()
    if isinstance(error, SubjectError):
        kind, message, detail = error.kind, str(error), error.detail
    elif isinstance(error, SystemExit):
        kind = "load"
        message = (
            f'the model\'s code ended the scan by calling sys.exit({error.code!r}): guard it with `if __name__ == "__main__"`'
        )
    elif out_of_memory(error):
        kind = "crash"
        message = (
            f"the scan ran out of memory ({one_line(error)}): give a smaller input with --input or a larger --memory-limit"
        )
    elif not isinstance(error, Exception):
        kind, detail = "load", user_traceback(error)
        message = f"the model's code raised {one_line(error)}{place(error)}, which is no Exception: nothing could catch it"
    return {"kind": kind, "message": message, "detail": detail}


def _tell(sender: Sender, **message: Any) -> None:
    try:
        sender.send(**message)
    except OSError:
        os._exit(_CHANNEL_CLOSED)
