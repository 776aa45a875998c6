"""Where a finding is, in the columns of an editor; and text that came from a model, made safe to print."""

from __future__ import annotations

from functools import cache
from pathlib import Path, PurePosixPath

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.trace import Location


def columns(location: Location) -> tuple[int | None, int | None]:
    """First column and the one behind the last, counted from 1 in characters; None where unknown.

    `Location` counts from 0 in UTF-8 bytes, as Python's `ast` does.
    """
    line = location.source.encode()

    def character(offset: int | None) -> int | None:
        if offset is None:
            return None
        return len(line[:offset].decode(errors="ignore")) + 1 if line else offset + 1

    return character(location.column), character(location.end_column)


def place(run: SubjectReport, finding: Finding) -> str:
    """`path:line:column` of a finding, as much of it as is known."""
    if finding.location is None:
        return run.subject.path
    column, _ = columns(finding.location)
    return f"{finding.location.path}:{finding.location.line}" + (f":{column}" if column else "")


def in_repository(path: str) -> str:
    """A path as CI systems want it: relative to the root of the git checkout, unchanged where there is none."""
    if PurePosixPath(path).is_absolute():
        return path
    return (_below_repository() / path).as_posix()


@cache
def _below_repository() -> Path:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".git").exists():
            return here.relative_to(folder)
    return Path()


def title(run: SubjectReport) -> str:
    """`path:name` of a subject."""
    return f"{run.subject.path}:{run.subject.name}" if run.subject.name else run.subject.path


def one_line(text: str) -> str:
    """The text on one line, control characters (terminal escapes among them) made visible."""
    return "".join(c if c.isprintable() else " " if c.isspace() else f"\\x{ord(c):02x}" for c in text)
