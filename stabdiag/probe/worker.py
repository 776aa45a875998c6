"""The worker process: loads the subject, probes it, and writes the Trace to a file. Started by `stabdiag.probe.process`.

Its first output stream carries one JSON message per line; what the user's code prints is sent to the error stream instead, so
that a model which prints JSON cannot be mistaken for the worker. The Trace is written after each part of the probe: a crash
loses the part that crashed, not what was known before.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, TextIO

from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Trace


def main() -> None:
    """Entry point: `python -m stabdiag.probe.worker REQUEST.json TRACE.pickle`."""
    request = ScanRequest.from_dict(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if request.memory_limit:
        resource.setrlimit(resource.RLIMIT_AS, (request.memory_limit, request.memory_limit))
    if not request.verbose:
        warnings.simplefilter("ignore")
    try:
        _probe(request, Path(sys.argv[2]), messages)
        _tell(messages, done=True)
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException as error:
        _tell(messages, error=_described(error))
    finally:
        messages.flush()
    sys.stderr.flush()
    os._exit(0)  # threads and exit handlers of the user's code must not keep the scan from ending


def _probe(request: ScanRequest, target: Path, messages: TextIO) -> None:
    from stabdiag.probe.here import probe_file
    from stabdiag.recording.eager import without_compiler
    from stabdiag.trace.file import dumps

    def progress(what: str, share: float) -> None:
        _tell(messages, progress=what, share=round(share, 3))

    def save(trace: Trace) -> None:
        part = target.with_suffix(".part")
        part.write_bytes(dumps(trace))
        part.replace(target)

    def stubborn() -> None:
        _tell(messages, done=True)
        os._exit(0)

    without_compiler()
    probe_file(request, progress, save, stubborn)


def _described(error: BaseException) -> dict[str, Any]:
    from stabdiag.subject.subject import SubjectError

    if isinstance(error, SubjectError):
        return {"kind": error.kind, "message": str(error), "detail": error.detail}
    if isinstance(error, SystemExit):
        message = (
            f'the model\'s code ended the scan by calling sys.exit({error.code!r}): guard it with `if __name__ == "__main__"`'
        )
        return {"kind": "load", "message": message, "detail": traceback.format_exc()}
    if isinstance(error, MemoryError):
        message = "the scan ran out of memory: give a smaller input with --input or a larger --memory-limit"
        return {"kind": "crash", "message": message, "detail": traceback.format_exc()}
    message = f"stabdiag failed with {type(error).__name__}: {' '.join(str(error).split())[:300]}; -v shows where"
    return {"kind": "internal", "message": message, "detail": traceback.format_exc()}


def _tell(messages: TextIO, **message: Any) -> None:
    messages.write(json.dumps(message) + "\n")
    messages.flush()


if __name__ == "__main__":
    main()
