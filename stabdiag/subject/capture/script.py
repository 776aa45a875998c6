"""Running someone's training script, unmodified, until a step of it is captured."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch

from stabdiag.subject.capture.watch import Cycle, Ended, Watch
from stabdiag.subject.frames import one_line, place, user_traceback
from stabdiag.subject.overlay import source_bytes
from stabdiag.subject.subject import SubjectError

STACK = 256 << 20
"""Bytes of stack for the thread that plays the step: deep models recurse, and a thread has 8 MiB by itself."""


def run(
    path: Path,
    arguments: Sequence[str],
    at: int,
    play: Callable[[list[Cycle]], None],
    *,
    keep_going: bool = False,
    stubborn: Callable[[], None] = lambda: None,
) -> None:
    """Run a script as `python path arguments` would, capture step `at` and the one after it, and call `play` with both.

    `play` runs in a thread of its own while the script waits: none of the script's modes (autocast, no_grad) is on there. Then
    the script is ended, or with `keep_going` runs on. A script that catches what ends it is left to `stubborn`.

    Raises:
        SubjectError: kind "load": the script failed or ended before the step, or the step cannot be captured.
    """
    _refuse_launchers(path)
    cycles: list[Cycle] = []
    failed: list[BaseException] = []
    played = False

    def captured(cycle: Cycle) -> bool:
        nonlocal played
        cycles.append(cycle)
        if len(cycles) == 1:
            return True
        played = True
        try:
            _in_a_thread(lambda: play(cycles))
        except BaseException as error:  # not into the script, which might catch it
            failed.append(error)
        if failed or not keep_going:
            raise Ended
        return False

    watch = Watch(at, captured, stubborn)
    problem: Exception | SystemExit | None = None
    with watch.watching(), _eager():
        try:
            _as_main(path, arguments)
        except Ended:
            pass
        except (Exception, SystemExit) as error:
            problem = error
        if not played and not cycles:
            watch.finish()
    if failed:
        raise failed[0]
    if cycles and not played:  # it took no second step
        _in_a_thread(lambda: play(cycles))
        return
    if not cycles:
        raise _no_step(path, at, watch, problem)


def _in_a_thread(work: Callable[[], None]) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    before = threading.stack_size(STACK)
    thread = threading.Thread(target=run, name="stabdiag")
    thread.start()
    threading.stack_size(before)
    thread.join()
    if failed:
        raise failed[0]


def _as_main(path: Path, arguments: Sequence[str]) -> None:
    """Execute the file as `__main__`, with its folder first on the path and the command line that it expects."""
    text = source_bytes(path)
    code = compile(text, str(path.resolve()), "exec", dont_inherit=True)
    module = ModuleType("__main__")
    module.__file__ = str(path.resolve())
    module.__builtins__ = __builtins__  # type: ignore[attr-defined]
    kept = sys.modules.get("__main__"), sys.argv, list(sys.path)
    sys.modules["__main__"], sys.argv = module, [str(path), *arguments]
    sys.path.insert(0, str(path.resolve().parent))
    try:
        exec(code, module.__dict__)
    finally:
        sys.modules["__main__"], sys.argv, sys.path[:] = kept[0], kept[1], kept[2]  # type: ignore[assignment]


@contextmanager
def _eager() -> Iterator[None]:
    """Let torch.compile return what it was given: the compiled kernels would hide the ops of the step."""
    compiling = torch.compile

    def uncompiled(model: object = None, *args: object, **kwargs: object) -> object:
        return (lambda wrapped: wrapped) if model is None else model

    torch.compile = uncompiled  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = compiling


def _refuse_launchers(path: Path) -> None:
    if int(os.environ.get("WORLD_SIZE", "1") or 1) > 1:
        raise SubjectError(
            f"{path} runs under a launcher with WORLD_SIZE={os.environ['WORLD_SIZE']}; expected one process: "
            "run it without torchrun.",
            "load",
        )


def _no_step(path: Path, at: int, watch: Watch, problem: Exception | SystemExit | None) -> SubjectError:
    """Why no step was captured, in one sentence."""
    done = (
        f"after {watch.steps} optimizer step{'s' if watch.steps != 1 else ''}"
        if watch.steps
        else "before its first optimizer step"
    )
    if isinstance(problem, SystemExit) and problem.code not in (0, None):
        return SubjectError(
            f"{path} ended with sys.exit({problem.code!r}) {done}{place(problem)}; give the arguments it needs behind its "
            f"name, as in `stabdiag run {path} --epochs 1`.",
            "load",
            user_traceback(problem),
        )
    if isinstance(problem, Exception):
        return SubjectError(
            f"{path} raises {one_line(problem)}{place(problem)} {done}; repair it so that `python {path}` trains.",
            "load",
            user_traceback(problem),
        )
    if watch.problem:
        return SubjectError(f"a step of {path} cannot be captured: {watch.problem}.", "load")
    if watch.steps:
        return SubjectError(f"{path} ended {done}; expected at least {at}, as --at asks for.", "load")
    why = "backward() was called, but no torch optimizer stepped" if watch.losses else "nothing called backward()"
    return SubjectError(
        f"{path} ended before an optimizer step ({why} in this process), so there is no training step to capture; give the "
        f"arguments with which it trains, or scan its model: `stabdiag scan {path}`.",
        "load",
    )
