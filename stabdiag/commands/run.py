"""`stabdiag run`: run a training script and diagnose a step that it really takes."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stabdiag.commands.diagnose import diagnose
from stabdiag.commands.options import scans, typed
from stabdiag.errors import UserError
from stabdiag.settings.config import load


@partial(scans, without=("inputs", "arguments", "data", "weights", "seeds", "batches"))
def run(
    context: typer.Context,
    script: Annotated[Path, typer.Argument(metavar="SCRIPT.py", help="The training script.")],
    script_arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGUMENTS...", help="Its own arguments.")] = None,
    at: Annotated[str, typer.Option("--at", metavar="STEPS", help="Which optimizer steps, as 1 or 10,100.")] = "1",
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Let the script finish.")] = False,
    format: Annotated[
        str | None, typer.Option("--format", "-f", metavar="FORMAT", help="Format on stdout. [default: text]")
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", metavar="FILE", help="Also write FILE; its suffix names the format. Repeatable."),
    ] = None,
    layers: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Write one row per op, precision and phase.")] = None,
    min_severity: Annotated[str | None, typer.Option(metavar="SEVERITY", help="Report nothing below. [default: info]")] = None,
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Exit 0 although there are findings.")] = False,
    write_baseline: Annotated[Path | None, typer.Option(metavar="FILE", help="Accept the findings of this run.")] = None,
    try_fixes: Annotated[bool, typer.Option("--try-fixes", help="Prove the suggested fixes by trying them.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="All layers, reasons, tracebacks.")] = False,
) -> int:
    """Run a training script as it is, and diagnose a step that it takes, with its own data, loss and optimizer.

    Options of stabdiag come before the script, those of the script behind it. What the script prints goes to stderr.
    """
    if not script.is_file():
        raise UserError(f"{script} does not exist; expected a training script, as in `stabdiag run train.py --epochs 1`")
    numbers = _numbers(at)
    settings = load(typed(context.params), config=context.params["config"])
    given = list(script_arguments or [])
    (request, *_) = settings.requests([str(script)])
    return diagnose(
        [replace(request, script=given, at=number, keep_going=keep_going) for number in numbers],
        settings.options,
        outputs=output or [],
        layers=layers,
        write_baseline=write_baseline,
        verbose=verbose,
        fix=[str(script), "--run", shlex.join(given)],
    )


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise UserError(f"`--at {text}` is no list of steps; expected numbers from 1, as in --at 10,100")
    return numbers
