"""`stabdiag scan`: diagnose models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stabdiag.commands.diagnose import diagnose
from stabdiag.commands.options import scans, typed
from stabdiag.commands.output import to_stdout
from stabdiag.settings.config import load


@scans
def scan(
    context: typer.Context,
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="TARGET...", help="FILE.py, FILE.py:Name, a folder or module:name; default: the configured."),
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", "-f", metavar="FORMAT", help="Format on stdout. [default: text]")
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", metavar="FILE", help="Also write FILE; its suffix names the format. Repeatable."),
    ] = None,
    layers: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Write one row per op, precision and phase.")] = None,
    steps_csv: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Write one row per training step.")] = None,
    min_severity: Annotated[str | None, typer.Option(metavar="SEVERITY", help="Report nothing below. [default: info]")] = None,
    exit_zero: Annotated[bool, typer.Option("--exit-zero", help="Exit 0 although there are findings.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 where the file has a loss that was not run.")] = False,
    write_baseline: Annotated[Path | None, typer.Option(metavar="FILE", help="Accept the findings of this scan.")] = None,
    try_fixes: Annotated[bool, typer.Option("--try-fixes", help="Prove the suggested fixes by trying them.")] = False,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", metavar="N", help="Models at a time. [default: 1]")] = None,
    show_settings: Annotated[
        bool, typer.Option("--show-settings", help="Show every setting and its source, and exit.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="All layers, reasons, tracebacks, the model's own output.")
    ] = False,
) -> int:
    """Diagnose models: exit 0 when there is nothing to report, 1 with findings, 2 when a scan did not happen."""
    settings = load(typed(context.params), config=context.params["config"])
    if show_settings:
        to_stdout(settings.show())
        return 0
    return diagnose(
        settings.requests(targets or []),
        settings.options,
        outputs=output or [],
        layers=layers,
        steps_csv=steps_csv,
        write_baseline=write_baseline,
        verbose=verbose,
    )
