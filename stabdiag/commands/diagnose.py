"""What `scan` and `run` share: scan every request, write the report and the tables, give the exit code."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from stabdiag.commands.output import refuse_unwritable
from stabdiag.commands.progress import progress_bar
from stabdiag.commands.publish import closing_lines, publish
from stabdiag.gate import baseline as baselines
from stabdiag.reports import csv, format_for
from stabdiag.scanning.session import run
from stabdiag.settings.request import RunOptions, ScanRequest


def diagnose(
    requests: Sequence[ScanRequest],
    options: RunOptions,
    *,
    outputs: Sequence[Path] = (),
    layers: Path | None = None,
    steps_csv: Path | None = None,
    write_baseline: Path | None = None,
    verbose: bool = False,
    fix: Sequence[str] | None = None,
) -> int:
    """Scan and report.

    Args:
        requests: what to scan; options: of the run as a whole.
        outputs: files for the report besides stdout; layers, steps_csv, write_baseline: tables and the baseline to write.
        verbose: show everything.
        fix: arguments with which `stabdiag fix` tries the fixes of this run; None for the path of the subject.
    """
    tables = [path for path in (layers, steps_csv, write_baseline) if path]
    for path in outputs:
        format_for(path)
    refuse_unwritable([*outputs, *tables])
    previous = baselines.load(str(write_baseline)) if write_baseline and write_baseline.exists() else None
    began = time.perf_counter()
    with progress_bar() as progress:
        report = run(requests, options, progress)
    extra = {layers: csv.layers(report)} if layers else {}
    extra |= {steps_csv: csv.steps(report)} if steps_csv else {}
    if write_baseline and all(subject.error is None for subject in report.runs):
        extra[write_baseline] = baselines.render(report, previous)
    publish(report, format=options.format, outputs=outputs, extra=extra, verbose=verbose)
    closing_lines(report, time.perf_counter() - began, verbose, fix)
    if any(subject.training.get("interrupted") for subject in report.runs):
        return 130
    code = report.exit_code(options.fail_on)
    if options.strict and code == 0 and any(subject.subject.unrun for subject in report.runs):
        return 1
    return 0 if code == 1 and (options.exit_zero or write_baseline) else code
