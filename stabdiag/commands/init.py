"""`stabdiag init`: write down what a scan would guess of a model, as a file to edit."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from stabdiag.commands.output import refuse_unwritable, to_stderr, write_files
from stabdiag.errors import UserError
from stabdiag.settings.config import nearest


def init(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="FILE.py or FILE.py:Name.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.py", help="Where. [default: beside it, FILE_stabdiag.py]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also over a file that is there.")] = False,
) -> int:
    """Write build_model, example_inputs, loss and make_optimizer for a model, and the configuration that scans them."""
    path = Path(target if Path(target).exists() else target.rpartition(":")[0])
    if not path.is_file():
        raise UserError(f"{target} is no file; expected a Python file with a model in it, as in `stabdiag init model.py`")
    written = output or path.with_name(f"{path.stem}_stabdiag.py")
    refuse_unwritable([written])
    if written.exists() and not force:
        raise UserError(f"{written} is there already; give --force to write over it, or another name with -o")
    contents = {written: _text(target)}
    settings = Path("stabdiag.toml")
    if nearest() is None:
        contents[settings] = f'[tool.stabdiag]\nmodels = ["{written.as_posix()}"]\n'
    write_files(contents)
    for name in contents:
        to_stderr(f"wrote {name}")
    to_stderr(f"edit what is guessed in {written}, then run `stabdiag scan {written}`")
    return 0


def _text(target: str) -> str:
    """The wrapper, made in a process of its own, because the code of the target runs there."""
    with tempfile.TemporaryDirectory(prefix="stabdiag-") as folder:
        answer = Path(folder, "wrapper.json")
        command = [sys.executable, "-m", "stabdiag.subject.wrapper", target, str(answer)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if not answer.exists():
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"the code of {target} ended the process with exit status {done.returncode} ({last})")
        found: dict[str, str] = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in found:
        raise UserError(found["error"].rstrip("."))
    return found["text"]
