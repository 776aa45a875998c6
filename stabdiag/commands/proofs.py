"""What `stabdiag fix` prints: a table of the fixes, the diff, and what no file could take."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from stabdiag import __version__
from stabdiag.finding import Finding, Severity
from stabdiag.repair.attempt import Attempt
from stabdiag.repair.editing.source import diff, text_of
from stabdiag.repair.search import Outcome
from stabdiag.reports.parts.place import one_line

SCHEMA = "stabdiag-fix/v1"
WIDTH = 160  # where nobody looks: files and pipes


def render(outcome: Outcome, *, only_proven: bool = True) -> str:
    """The whole answer as text; coloured at a terminal."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else WIDTH
    color = terminal and "NO_COLOR" not in os.environ
    console = Console(file=StringIO(), width=width, force_terminal=color, no_color=not color, markup=False, highlight=False)
    shown = [a for a in outcome.attempts if a.fix.proven or not only_proven]
    if shown:
        console.print(_table(shown))
    for line in _summary(outcome):
        console.print(line, soft_wrap=True)
    written = console.file
    assert isinstance(written, StringIO)
    text = "".join(line.rstrip() + "\n" for line in written.getvalue().splitlines())
    for path, edited in sorted(outcome.state.texts.items()):
        text += "\n" + _colored(diff(text_of(Path(path)), edited, _shown(path)), color)
    return text + "".join(f"{line}\n" for line in _by_hand(outcome))


def as_json(outcome: Outcome) -> str:
    """The whole answer as JSON: every attempt, the diff of every file, the verdicts, and what is left."""
    from stabdiag.reports.json import plain

    document = {
        "schema": SCHEMA,
        "version": __version__,
        "attempts": [
            {"finding": _named(a.finding), "accepted": a in outcome.accepted, **asdict(a.fix)} for a in outcome.attempts
        ],
        "diffs": {_shown(p): diff(text_of(Path(p)), text, _shown(p)) for p, text in sorted(outcome.state.texts.items())},
        "after_build": outcome.state.after_build,
        "settings": outcome.state.settings,
        "precisions": [{"name": p.name, "verdict": p.verdict, "where": p.where} for p in outcome.after.precisions],
        "advice": _precision(outcome),
        "left": [{"finding": _named(f), "why": _why_left(f, outcome)} for f in outcome.left],
    }
    return json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _named(finding: Finding) -> dict[str, object]:
    at = finding.location
    place = {"path": at.path, "line": at.line} if at is not None else None
    return {"code": finding.code, "name": finding.name, "severity": finding.severity.value, "location": place}


def _shown(path: str) -> str:
    """A path below the working directory as it is below it, any other by its name."""
    near = os.path.relpath(path).replace(os.sep, "/")
    return Path(path).name if near.startswith("..") else near


def _colored(difference: str, color: bool) -> str:
    """A diff as it is, so that `patch` can read it; with colours at a terminal."""
    if not color:
        return difference
    console = Console(force_terminal=True)
    with console.capture() as captured:
        console.print(Syntax(difference.rstrip(), "diff", background_color="default"))
    return captured.get()


def _table(attempts: list[Attempt]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("finding", "fix", "proven", "before → after", "note"):
        table.add_column(name, overflow="fold", ratio={"before → after": 3, "note": 3}.get(name), no_wrap=name == "proven")
    for attempt in attempts:
        finding, fix = attempt.finding, attempt.fix
        at = f":{finding.location.line}" if finding.location is not None else ""
        change = f"{fix.before or '?'} → {fix.after or '?'}"
        table.add_row(
            f"{finding.code} {finding.name}{at}",
            fix.name,
            Text("untested", "dim") if fix.proven is None else Text("yes", "green") if fix.proven else Text("no", "red"),
            one_line(change),
            one_line(fix.note),
        )
    return table


def _summary(outcome: Outcome) -> list[str]:
    """How many findings there were and are."""
    before, after = (_count(report.findings) for report in (outcome.before, outcome.after))
    if not before:
        return ["nothing to fix"]
    tried = f"{len(outcome.attempts)} tried, {len(outcome.accepted)} proven"
    what = "error or warning" if before == 1 else "errors and warnings"
    return [
        "",
        f"{before} {what} → {after}; fixes: {tried}",
        *(_left(f, outcome) for f in outcome.left),
        *_precision(outcome),
    ]


def _precision(outcome: Outcome) -> list[str]:
    """Which precision to train in where one does not work and another does: a verdict, not a fix."""
    rows = {row.name: row for row in outcome.after.precisions}
    said = []
    for name, row in rows.items():
        other = name.replace("float16", "bfloat16") if "bfloat16" not in name else ""
        usable = other in rows and rows[other].verdict == "safe"
        if row.verdict in ("fails", "at-risk") and usable:
            said.append(f"precision: {name} {row.verdict.replace('-', ' ')}, {other} is safe: train in {other}")
    return said


def _left(finding: Finding, outcome: Outcome) -> str:
    """A finding that no proven fix removes, and why."""
    at = finding.location
    where = f" at {at.path}:{at.line}" if at is not None else ""
    return f"left: {finding.code} {finding.name}{where}: {_why_left(finding, outcome)}"


def _why_left(finding: Finding, outcome: Outcome) -> str:
    at = finding.location
    same = [
        a for a in outcome.attempts if (a.finding.code, a.finding.module) == (finding.code, finding.module) and not a.fix.proven
    ]
    if same:
        return f"{same[0].fix.name} is not proven: {one_line(same[0].fix.note)}"
    if at is not None and at.library:
        return "the line is in a library, which is not edited"
    return "no remedy applies to this code"


def _count(findings: list[Finding]) -> int:
    return sum(f.status == "new" and f.severity is not Severity.INFO for f in findings)


def _by_hand(outcome: Outcome) -> list[str]:
    """What is no edit of a file: a function to call after building, training settings."""
    lines: list[str] = []
    if outcome.state.after_build:
        lines += ["", "The model is built outside its file; call this once it is built:", "", "def repair(model):"]
        lines += [f"    {line}" for statement in outcome.state.after_build for line in statement.splitlines()]
    settings = [a.fix for a in outcome.accepted if a.remedy.of_training and not a.fix.diff]
    if settings:
        lines += ["", "In the training script:", ""]
        lines += [f"    {line}" for fix in settings for line in (fix.snippet or fix.title).splitlines()]
    return lines
