"""Suppression comments: `# stabdiag: ignore[SD201] reason` at a statement or above, `# stabdiag: file-ignore[SD201]`.

There is no form without codes: what will be found next year should not be silenced today.
"""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stabdiag.errors import did_you_mean
from stabdiag.finding import Finding
from stabdiag.judging.report import Report, SubjectReport
from stabdiag.rule import all_rules
from stabdiag.rules.sd001_unused_suppression import unused
from stabdiag.trace import Location

COMMENT = re.compile(r"#\s*stabdiag:\s*(?P<file>file-)?ignore(?:\[(?P<codes>[^\]]*)\])?(?P<reason>[^#]*)")


@dataclass
class Suppression:
    """One comment.

    Attributes:
        location: of the comment itself.
        codes: what it names, as written.
        reason: the rest of the comment.
        lines: the lines it speaks for; None for the whole file.
        used: codes that silenced something.
    """

    location: Location
    codes: list[str]
    reason: str
    lines: range | None
    used: set[str] = field(default_factory=set)

    def covers(self, finding: Finding) -> str | None:
        """What it names this finding by, None when it does not speak for it."""
        assert finding.location is not None
        if self.lines is not None and finding.location.line not in self.lines:
            return None
        return next((code for code in self.codes if code.upper() == finding.code or code.lower() == finding.name), None)


def apply(report: Report) -> list[list[Finding]]:
    """Mark suppressed findings. For each run, findings about comments that silence nothing."""
    comments = {path: list(read(path)) for path in sorted({path for run in report.runs for path in _files(run)})}
    for run in report.runs:
        for finding in run.findings:
            for comment in comments.get(finding.location.path, []) if finding.location else []:
                if (named := comment.covers(finding)) is not None:
                    comment.used.add(named)
                    finding.status = "suppressed"
                    finding.evidence["suppression"] = comment.reason
    judged: set[str] = set()
    found: list[list[Finding]] = []
    for run in report.runs:
        found.append([])
        for path in sorted(_files(run) - judged):
            if comments[path]:
                ran = [other for other in report.runs if path in _files(other)]
                found[-1] += _unused(comments[path], path, ran)
        judged |= _files(run)
    return found


def read(path: str) -> Iterator[Suppression]:
    """The suppression comments of a Python file, in order; none when it cannot be read as Python.

    A comment inside a statement speaks for all its lines; one on a line of its own for the statement directly below.
    """
    above: list[re.Match[str]] = []  # on lines of their own, waiting for the statement below
    within: list[re.Match[str]] = []
    rows: dict[int, int] = {}  # id of a match -> its line
    first = 0  # first line of the statement being read, 0 between statements
    try:
        with tokenize.open(path) as file:
            for token in tokenize.generate_tokens(file.readline):
                row = token.start[0]
                if token.type == tokenize.COMMENT:
                    if found := COMMENT.search(token.line, token.start[1]):
                        rows[id(found)] = row
                        if found["file"]:
                            yield _suppression(path, row, found, None)
                        else:
                            (within if first else above).append(found)
                elif token.type == tokenize.NEWLINE:
                    for found in above + within:
                        yield _suppression(path, rows[id(found)], found, range(first, row + 1))
                    above, within, first = [], [], 0
                elif token.type == tokenize.NL:
                    if not first and not token.line.strip():
                        yield from (_suppression(path, rows[id(found)], found, range(0)) for found in above)
                        above = []
                elif token.type not in (tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
                    first = first or row
    except (OSError, SyntaxError, UnicodeDecodeError, tokenize.TokenError):
        return
    yield from (_suppression(path, rows[id(found)], found, range(0)) for found in above)


def _suppression(path: str, row: int, found: re.Match[str], lines: range | None) -> Suppression:
    line = found.string.rstrip("\r\n")
    start, end = (len(line[:at].encode()) for at in (found.start(), len(line)))
    codes = [code.strip() for code in (found["codes"] or "").split(",") if code.strip()]
    return Suppression(Location(path, row, start, end, source=line), codes, found["reason"].strip(), lines)


def _unused(comments: Iterable[Suppression], path: str, runs: list[SubjectReport]) -> Iterator[Finding]:
    known = {word.lower(): rule.code for rule in all_rules().values() for word in (rule.code, rule.name)}
    on = {code for run in runs for code in run.rules_run}
    seen = _lines_that_ran(path, runs)
    remove = "remove the comment, or name the rule it is meant for: # stabdiag: ignore[SD201] reason"
    for comment in comments:
        if not comment.codes:
            yield unused("the suppression names no rule, so it silences nothing", remove, path, comment.location)
        for code in comment.codes:
            if code.lower() not in known:
                message = f"the suppression names `{code}`, which is no rule{did_you_mean(code, sorted(known))}"
                yield unused(message.rstrip("?"), remove, path, comment.location)
            elif code not in comment.used and known[code.lower()] in on and comment.location.line in seen:
                yield unused(f"the suppression of `{code}` silences nothing", remove, path, comment.location)


def _files(run: SubjectReport) -> set[str]:
    """Files of the author's that this subject ran: where its findings, layers and ops are."""
    places = {finding.location.path for finding in run.findings if finding.location}
    places |= {layer.path for layer in run.layers} | {row.path for row in run.op_rows} | {run.subject.path}
    return {path for path in places if path.endswith(".py") and "site-packages" not in path}


def _lines_that_ran(path: str, runs: list[SubjectReport]) -> set[int]:
    """Lines of a file without those top-level classes and functions in which no op ran and nothing was found."""
    touched = {row.line for run in runs for row in run.op_rows if row.path == path}
    touched |= {layer.line for run in runs for layer in run.layers if layer.path == path}
    touched |= {f.location.line for run in runs for f in run.findings if f.location and f.location.path == path}
    source = Path(path).read_text(encoding="utf-8", errors="replace")
    lines = set(range(1, source.count("\n") + 2))
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            span = set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            if not span & touched:
                lines -= span
    return lines
