"""What a model's own code may do: end the process, lie to the parent, hang, start processes, raise what cannot be printed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.hostile.conftest import source

pytestmark = pytest.mark.long

# Pieces of a model file -> exit code, and what the error says ("" for a scan that happened).
ENDS = {
    "exits while it is imported": (source(rest="import sys; sys.exit(3)"), 2, "sys.exit"),
    "exits in forward": (source(forward="import sys; sys.exit(0)"), 2, "sys.exit"),
    "exits hard with success": (source(rest="import os; os._exit(0)"), 2, "exit status 0"),
    "exits hard in forward": (source(forward="import os; os._exit(7)"), 2, "exit status 7"),
    "is ended by a fault": (source(rest="import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"), 2, "SIGSEGV"),
    "aborts": (source(forward="import os; os.abort()"), 2, "SIGABRT"),
    "kills itself": (source(forward="import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), 2, "SIGKILL"),
    "raises KeyboardInterrupt": (source(forward="raise KeyboardInterrupt"), 2, "KeyboardInterrupt"),
    "raises KeyboardInterrupt on import": (source(rest="raise KeyboardInterrupt"), 2, "KeyboardInterrupt"),
    "raises GeneratorExit": (source(forward="raise GeneratorExit"), 2, "GeneratorExit"),
    "raises a BaseException of its own": (source(forward="raise type('Stop', (BaseException,), {})('enough')"), 2, "enough"),
    "raises what cannot be printed": (
        source(rest="class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute"), 2, "Mute"),
    "raises what cannot be printed in forward": (
        source(forward="raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})"), 2, "Mute"),
    "recurses without end": (source(forward="return self.forward(x)"), 2, "without end"),
    "recurses in build": (source(build="return build_model()"), 2, "recurs"),
    "closes all files": (source(forward="import os; os.closerange(3, 256)"), 2, "closed files"),
    "closes stdout and stderr": (source(rest="import os; os.close(1); os.close(2)"), 0, ""),
    "replaces sys.stdout": (source(rest="import sys; sys.stdout = sys.stderr = None"), 0, ""),
    "prints a finished scan": (
        source(rest="""print('{"done": true}')""", forward="import os; os.write(1, b'{\"done\": true}\\n')"), 0, ""),
    "writes to every pipe that it finds": (
        source(forward="""
            import os
            for fd in range(3, 64):
                try:
                    os.write(fd, b'{"done": true}\\n')
                except OSError:
                    pass
            os._exit(0)"""), 2, "exit status 0"),
    "changes the working directory": (source(rest="import os; os.chdir('/')"), 0, ""),
    "sets a signal handler": (source(rest="import signal; signal.signal(signal.SIGTERM, lambda *a: None)"), 0, ""),
    "turns gradients off": (source(rest="torch.set_grad_enabled(False)"), 0, ""),
    "starts a thread that never ends": (
        source(rest="import threading, time\nthreading.Thread(target=lambda: time.sleep(1e6)).start()"), 0, ""),
    "registers an exit handler that hangs": (source(rest="import atexit, time; atexit.register(time.sleep, 1e6)"), 0, ""),
    "deletes its own file": (source(rest="import os; os.unlink(__file__)"), 0, ""),
    "replaces builtins": (source(rest="import builtins; builtins.print = None"), 0, ""),
    "has a train() that returns nothing": (source(methods="def train(self, mode=True): super().train(mode)"), 0, ""),
    "has a train() that raises": (source(methods="def train(self, mode=True): raise ValueError('no')"), 2, "no"),
    "has no truth value": (source(methods="def __bool__(self): raise ValueError('neither')"), 0, ""),
    "has a length that lies": (source(methods="def __len__(self): return 0"), 0, ""),
    "compares with everything": (
        source(methods="def __eq__(self, other): raise ValueError\n__hash__ = object.__hash__"), 0, ""),
    "answers any attribute": (
        source(methods="""
            def __getattr__(self, name):
                try: return super().__getattr__(name)
                except AttributeError: return 0"""), 0, ""),
    "is compiled by a decorator": (
        source(rest="@torch.compile(fullgraph=True)\ndef twice(x): return 2 * x", forward="h = twice(h)"), 0, ""),
    "compiles itself": (source(build="model = Net(); model.compile(); return model"), 0, ""),
    "is compiled": (source(build="return torch.compile(Net(), mode='max-autotune')"), 0, ""),
    "has 200 wrappers": (source(
        rest="class Wrap(nn.Module):\n    def __init__(self, inner):\n        super().__init__()\n        self.inner = inner\n"
        "    def forward(self, x): return self.inner(x)",
        build="model = Net()\nfor _ in range(200): model = Wrap(model)\nreturn model"), 0, ""),
    "keeps a default dtype of float64": (source(rest="torch.set_default_dtype(torch.float64)"), 0, ""),
    "is a half model": (source(build="return Net().half()").replace("def example_inputs", "def _unused"), 0, ""),
    "is a bfloat16 model": (source(build="return Net().bfloat16()").replace("def example_inputs", "def _unused"), 0, ""),
    "is a float64 model": (source(build="return Net().double()").replace("def example_inputs", "def _unused"), 0, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_the_answer_is_true_and_one_sentence(scan, name: str) -> None:
    text, code, says = ENDS[name]
    outcome = scan(text)
    assert outcome.code == code, outcome.stderr
    assert says.lower() in outcome.error.lower() and bool(outcome.error) == bool(says)
    assert "Traceback" not in outcome.stderr and "\n" not in outcome.error


# Float32 that cannot train is no "safe": exit 2 with the line, whichever part of the step raises.
CANNOT_TRAIN = {
    "backward raises: a saved tensor is overwritten": source(forward="h = torch.sigmoid(h); h += 1"),
    "backward raises: a custom function": source(
        rest="class Bad(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x): return x.clone()\n"
        "    @staticmethod\n    def backward(ctx, g): raise ValueError('no way back')",
        forward="h = Bad.apply(h)",
    ),
    "forward raises": source(forward="raise ValueError('not today')"),
    "gradients are off in forward": source(methods="forward = torch.no_grad()(forward)"),
}


@pytest.mark.parametrize("name", CANNOT_TRAIN)
def test_a_model_that_cannot_be_trained_does_not_pass(scan, name: str) -> None:
    outcome = scan(CANNOT_TRAIN[name])
    assert outcome.code in (1, 2), outcome.stderr
    assert outcome.error or any(f["severity"] == "error" for f in outcome.run["findings"])
    assert outcome.verdict("float32") not in ("safe", "safe-with-scaling")


HANGS = {
    "import": source(rest="import time; time.sleep(1e6)"),
    "forward": source(forward="import time; time.sleep(1e6)"),
    "a child holds the pipes": source(rest="import os, time\nif os.fork() == 0:\n    time.sleep(1e6)\nos._exit(3)"),
    "a child waits and so do we": source(rest="import os, time\nif os.fork() == 0:\n    time.sleep(1e6)\nos.wait()"),
    "a loop that swallows everything": source(
        rest="import time\nwhile True:\n    try: time.sleep(1)\n    except BaseException: pass"
    ),
}


@pytest.mark.parametrize("name", HANGS)
def test_every_wait_has_a_deadline(scan, name: str) -> None:
    began = time.monotonic()
    outcome = scan(HANGS[name], "--timeout", "8")
    assert outcome.code == 2 and time.monotonic() - began < 30
    assert "after 8 s" in outcome.error or "exit status 3" in outcome.error


LEFT = {
    "a child": "subprocess.Popen(['sleep', '{n}'])",
    "a child in its own session": "subprocess.Popen(['sleep', '{n}'], start_new_session=True)",
    "a grandchild": "subprocess.Popen(['sh', '-c', 'sleep {n} & exit'], start_new_session=True)",
}


@pytest.mark.parametrize("name", LEFT)
def test_nothing_outlives_the_scan(scan, tmp_path: Path, name: str) -> None:
    number = 1_000_000 + sorted(LEFT).index(name)
    outcome = scan(source(rest=f"import subprocess; {LEFT[name].format(n=number)}"))
    assert outcome.code == 0, outcome.stderr
    wanted = f"sleep\0{number}\0".encode()
    time.sleep(0.2)
    left = [p for p in Path("/proc").glob("[0-9]*") if (p / "cmdline").exists() and _cmdline(p) == wanted]
    assert not left


def _cmdline(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("name", ["types", "queue", "random", "json", "torch", "stabdiag", "typing", "numbers"])
def test_a_file_beside_the_model_hides_nothing_of_ours(scan, tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong one')\n")
    (tmp_path / "models").mkdir()
    outcome = scan(source(), name="models/model.py")
    assert outcome.code == 0, outcome.stderr


def test_temporary_files_are_removed(scan, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    text = source(rest="import tempfile; tempfile.mkdtemp(); tempfile.mkstemp(); print(tempfile.gettempdir())")
    outcome = scan(text, TMPDIR=str(tmp_path / "tmp"))
    assert outcome.code == 0 and not list((tmp_path / "tmp").iterdir())
