"""`stabdiag scan`: diagnose models."""

from __future__ import annotations

import time
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from stabdiag.commands.options import scans, typed
from stabdiag.commands.output import refuse_unwritable, to_stderr, to_stdout
from stabdiag.commands.progress import progress_bar
from stabdiag.commands.publish import publish
from stabdiag.gate import baseline as baselines
from stabdiag.judging.report import Report
from stabdiag.reports import csv, format_for
from stabdiag.reports.parts.place import one_line
from stabdiag.scanning.session import run
from stabdiag.settings.config import load


@scans
def scan(
    context: typer.Context,
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="TARGET...", help="FILE.py, FILE.py:Name or module:name; default: the configured models."),
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
    outputs, tables = list(output or []), [path for path in (layers, steps_csv, write_baseline) if path]
    for path in outputs:
        format_for(path)
    refuse_unwritable([*outputs, *tables])

    requests, options = settings.requests(targets or []), settings.options
    previous = baselines.load(str(write_baseline)) if write_baseline and write_baseline.exists() else None
    began = time.perf_counter()
    with progress_bar() as progress:
        report = run(requests, options, progress)
    extra = {layers: csv.layers(report)} if layers else {}
    extra |= {steps_csv: csv.steps(report)} if steps_csv else {}
    if write_baseline and all(subject.error is None for subject in report.runs):
        extra[write_baseline] = baselines.render(report, previous)
    publish(report, format=options.format, outputs=outputs, extra=extra, verbose=verbose)
    _closing_lines(report, time.perf_counter() - began, verbose)
    if any(subject.training.get("interrupted") for subject in report.runs):
        return 130
    code = report.exit_code(options.fail_on)
    return 0 if code == 1 and (options.exit_zero or write_baseline) else code


def _closing_lines(report: Report, seconds: float, verbose: bool) -> None:
    """What went wrong, what it cost and what to do next, on stderr."""
    for subject in report.runs:
        if subject.error:
            if verbose and subject.error.detail:
                to_stderr(subject.error.detail.rstrip())
            to_stderr(f"error: {one_line(subject.error.message)}")
    if all(subject.error for subject in report.runs):
        return
    spent = sum(sum(subject.coverage.get("spent", {}).values()) for subject in report.runs)
    line = f"scanned in {seconds:.1f} s = {spent:.1f} bare steps" if spent else f"scanned in {seconds:.1f} s"
    for subject in report.runs:
        new = [finding for finding in subject.findings if finding.status == "new"]
        if new:
            line += f"; `stabdiag rule {new[0].code}` explains it"
            line += f", `stabdiag fix {quote(subject.subject.path)}` tries the fixes" if any(f.fixes for f in new) else ""
            break
    to_stderr(line)
