"""`stabdiag fix`: try the fixes of every finding and show, write or apply those that are proven."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stabdiag.commands.options import scans, typed
from stabdiag.commands.output import refuse_unwritable, to_stderr, to_stdout, write_files
from stabdiag.commands.progress import progress_bar
from stabdiag.errors import UserError
from stabdiag.finding import Severity
from stabdiag.reports.parts.place import one_line
from stabdiag.rule import selected
from stabdiag.scanning.session import run as scan_all
from stabdiag.settings.config import load

MOST_AT_ONCE = 4
"""Scans at the same time: each holds a copy of the model with all its activations."""


@scans
def fix(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="FILE.py, FILE.py:Name or module:name.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.py", help="Write the edited file there.")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Edit the files in place.")] = False,
    format: Annotated[str, typer.Option("--format", "-f", metavar="text|json", help="What to print.")] = "text",
    force: Annotated[bool, typer.Option("--force", help="With --write: also files with uncommitted changes.")] = False,
    only_proven: Annotated[
        bool, typer.Option("--only-proven/--unproven", help="Show proven fixes only, or the failed attempts, too.")
    ] = True,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="ARGUMENTS", help="Run TARGET as a script with these arguments, like `stabdiag run`."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tracebacks, the model's own output.")] = False,
) -> int:
    """Try the fixes: exit 0 when the proven ones leave nothing to report, 1 when findings remain."""
    from stabdiag.commands import proofs
    from stabdiag.repair.search import prove

    if format not in ("text", "json"):
        raise UserError(f"`stabdiag fix` prints text or json, not {format}")
    settings = load(
        typed({name: value for name, value in context.params.items() if name != "format"}), config=context.params["config"]
    )
    file = Path(target if Path(target).exists() else target.rpartition(":")[0])
    refuse_unwritable([*([output] if output else []), *([file] if write and file.is_file() else [])])
    if write and not force and file.is_file():
        _refuse_uncommitted(file)
    requests, options = settings.requests([target]), settings.options
    if len(requests) != 1:
        raise UserError(f"{target} is configured {len(requests)} times; name one model, as in `stabdiag fix FILE.py:Name`")
    request = requests[0]
    codes = {rule.code for rule in selected(request.select, request.extend_select, request.ignore)}
    request = replace(request, select=[], extend_select=[], try_fixes=False, script=None if run is None else shlex.split(run))
    with progress_bar() as progress:
        trials = partial(scan_all, options=replace(options, min_severity="info"), progress=progress)
        jobs = max(1, min(MOST_AT_ONCE, os.cpu_count() or 1))
        outcome = prove(request, lambda asked: trials([asked]).runs[0], lambda finding: finding.code in codes, jobs=jobs)
    if outcome.before.error is not None:
        if verbose and outcome.before.error.detail:
            to_stderr(outcome.before.error.detail.rstrip())
        to_stderr(f"error: {one_line(outcome.before.error.message)}")
        return 2
    contents = _contents(outcome.state.texts, file, output, write=write, force=force)
    to_stdout(proofs.as_json(outcome) if format == "json" else proofs.render(outcome, only_proven=only_proven))
    write_files(contents)
    for path in contents:
        to_stderr(f"wrote {path}")
    floor = 3 if options.fail_on == "never" else Severity(options.fail_on).rank
    return int(any(f.severity.rank >= floor for f in outcome.left))


def _contents(texts: dict[str, str], file: Path, output: Path | None, *, write: bool, force: bool) -> dict[Path, bytes]:
    """What to write where, in the encoding of the file that was edited."""
    from stabdiag.repair.editing.source import encoding_of

    contents: dict[Path, bytes] = {}
    if output is not None:
        elsewhere = [path for path in texts if not file.is_file() or Path(path) != file.resolve()]
        if elsewhere:
            raise UserError(f"the fixes edit {elsewhere[0]}, not {file}; -o writes one file, use --write")
        text = texts.get(str(file.resolve()))
        contents[output] = file.read_bytes() if text is None else text.encode(encoding_of(file))
    for name, text in texts.items() if write else ():
        path = Path(name)
        if not force:
            _refuse_uncommitted(path)
        contents[path] = text.encode(encoding_of(path))
    return contents


def _refuse_uncommitted(path: Path) -> None:
    """Raise UserError for a file that git could not bring back."""
    if why := _uncommitted(path):
        raise UserError(f"{path} {why}; commit it first, or give --force")


def _uncommitted(path: Path) -> str:
    """Why git could not bring a file back; "" when it could, or there is no git."""
    import subprocess

    command = ["git", "status", "--porcelain", "--ignored", "--", path.name]
    try:
        asked = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    state = asked.stdout[:2] if asked.returncode == 0 else ""
    return {"": "", "??": "is not under version control", "!!": ""}.get(state, "has uncommitted changes")
