"""`stabdiag replay`: play a step that went wrong again, from its capsule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stabdiag.commands.output import refuse_unwritable
from stabdiag.commands.publish import publish
from stabdiag.errors import one_of
from stabdiag.reports import format_for, formats
from stabdiag.settings.values import keyword_arguments


def replay(
    capsule: Annotated[Path, typer.Argument(metavar="CAPSULE", help="A folder that `stabdiag.watch` wrote.")],
    target: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help="FILE.py:Name of the model. [default: as in the capsule]")
    ] = None,
    arguments: Annotated[
        list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="Constructor argument; repeatable.")
    ] = None,
    format: Annotated[str, typer.Option("--format", "-f", help="Format on stdout.")] = "text",
    output: Annotated[list[Path] | None, typer.Option("--output", "-o", help="Also write FILE.", metavar="FILE")] = None,
    fail_on: Annotated[str, typer.Option(metavar="SEVERITY", help="error, warning, info or never. [default: error]")] = "error",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="All layers, all fixes, reasons.")] = False,
) -> int:
    """Run a step that went wrong again, in every precision, on the CPU."""
    one_of("format", format, formats())
    for path in output or []:
        format_for(path)
    refuse_unwritable(output or [])
    from stabdiag.live.replay import replay as play

    report = play(capsule, target, keyword_arguments(arguments or []))
    publish(report, format=format, outputs=output or [], verbose=verbose)
    return report.exit_code(fail_on)
