"""`stabdiag replay`: play a step that went wrong again, from its capsule."""

from pathlib import Path
from typing import Annotated

import typer

from stabdiag.commands.options import SCAN_OPTIONS
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
    arguments: SCAN_OPTIONS["arguments"] = None,
    format: Annotated[str, typer.Option("--format", "-f", help="Format on stdout.")] = "text",
    output: Annotated[list[Path] | None, typer.Option("--output", "-o", help="Also write FILE.", metavar="FILE")] = None,
    fail_on: SCAN_OPTIONS["fail_on"] = None,
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
    return report.exit_code(fail_on or "error")
