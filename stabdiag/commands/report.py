"""`stabdiag report`: render a saved run again. Does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stabdiag.commands.output import refuse_unwritable
from stabdiag.commands.publish import publish
from stabdiag.errors import UserError, one_of
from stabdiag.judging.report import Report
from stabdiag.reports import formats, json


def report(
    file: Annotated[Path, typer.Argument(metavar="RUN.json", help="A report saved with `scan -o RUN.json`.")],
    format: Annotated[str, typer.Option("--format", "-f", help="Format on stdout.")] = "text",
    output: Annotated[list[Path] | None, typer.Option("--output", "-o", help="Also write FILE.", metavar="FILE")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="All layers, all fixes, reasons.")] = False,
) -> int:
    """Render a saved run in another format."""
    one_of("format", format, formats())
    refuse_unwritable(output or [])
    publish(read(file), format=format, outputs=output or [], verbose=verbose)
    return 0


def read(file: Path) -> Report:
    """A saved report. Raises UserError when it cannot be read."""
    try:
        return json.load(file.read_text(encoding="utf-8-sig"), str(file))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is no UTF-8 text; expected a report saved with `-o RUN.json`") from None
