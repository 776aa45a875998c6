"""A finished report on stdout and in files."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from stabdiag.commands.output import append, to_stderr, to_stdout, write_files
from stabdiag.judging.report import Report
from stabdiag.reports import format_for, renderer
from stabdiag.reports.parts.place import one_line


def publish(
    report: Report,
    *,
    format: str,
    outputs: Sequence[Path] = (),
    extra: Mapping[Path, str] | None = None,
    verbose: bool = False,
) -> None:
    """Render everything first, then write all files or none, then stdout."""
    contents = {path: renderer(format_for(path))(report) for path in outputs} | dict(extra or {})
    text = _text(report, verbose) if format == "text" else renderer(format)(report)
    write_files(contents)
    # What could not be scanned is said on stderr; at a terminal, once is enough.
    if format != "text" or not report.runs or not all(run.error for run in report.runs):
        to_stdout(text)
    if format == "github" and (summary := os.environ.get("GITHUB_STEP_SUMMARY")):
        append(Path(summary), renderer("markdown")(report))


def closing_lines(report: Report, seconds: float, verbose: bool, again: Sequence[str] | None = None) -> None:
    """What went wrong, what it cost and what to do next, on stderr. `again` are the arguments of `fix` for this run."""
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
            line += (
                f", `{shlex.join(['stabdiag', 'fix', *(again or [subject.subject.path])])}` tries the fixes"
                if any(f.fixes for f in new)
                else ""
            )
            break
    to_stderr(line)


def _text(report: Report, verbose: bool) -> str:
    from stabdiag.reports import text

    if not sys.stdout.isatty():
        return text.render(report, verbose=verbose)
    color = "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return text.render(report, width=shutil.get_terminal_size().columns, color=color, verbose=verbose)
