"""Markdown for a pull-request comment or a job summary: the verdict, then the findings, at most 65,535 characters."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stabdiag.finding import Finding
from stabdiag.judging.report import Report, SubjectReport
from stabdiag.reports.parts.place import one_line, place, title
from stabdiag.reports.text import counts, remarks, verdict_words

SUFFIX = ".md"
LIMIT = 65_535  # characters of a GitHub comment
RESERVE = 200  # for the line that says what was left out
MARKS = {"error": "🔴", "warning": "🟡", "info": "🔵"}


def render(report: Report) -> str:
    """The report as Markdown. Findings that do not fit are counted."""
    page, left_out = "", 0
    for run in report.runs:
        for block, is_finding in _blocks(run):
            if left_out or len(page) + len(block) > LIMIT - RESERVE:
                left_out += is_finding
            else:
                page += block
    if left_out:
        page += f"\n… and {left_out} more findings; the JSON report has all of them.\n"
    return page


def _blocks(run: SubjectReport) -> Iterator[tuple[str, bool]]:
    yield f"### {escaped(title(run))}\n\n", False
    if run.error:
        yield f"🔴 **not scanned**: {escaped(run.error.message)}\n\n", False
        return
    yield f"{escaped(counts(run.findings))}\n\n", False
    if run.precisions:
        yield _verdicts(run), False
    for finding in run.findings:
        if finding.status == "new":
            yield _finding(run, finding), True


def _verdicts(run: SubjectReport) -> str:
    rows = ["| precision | verdict | output error | gradient error | headroom | |", "|---|---|--:|--:|--:|---|"]
    for p in run.precisions:
        errors = ["" if value is None else f"{value:.1e}" for value in (p.output_error, p.gradient_error)]
        bits = "" if p.headroom_bits is None else f"{p.headroom_bits:.1f} bits"
        cells = [p.name, f"**{escaped(verdict_words(p))}**", *errors, bits, escaped("; ".join(remarks(p)))]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n\n"


def _finding(run: SubjectReport, finding: Finding) -> str:
    precisions = f" · {', '.join(finding.precisions)}" if finding.precisions else ""
    lines = [
        f"{MARKS[finding.severity]} **{finding.severity}** `{finding.code}` {finding.name}: {escaped(finding.message)}  ",
        f"<sub>{escaped(place(run, finding))}{escaped(precisions)}</sub>",
    ]
    if finding.location and finding.location.source:
        lines += ["", *_fenced(finding.location.source.strip())]
    lines += [f"- {escaped(text)}" for text in (finding.label, *finding.notes) if text]
    for fix in finding.fixes:
        proven = {True: " (proven", False: " (tried, does not help", None: ""}[fix.proven]
        change = f": {fix.before} → {fix.after})" if proven and fix.before else ")" if proven else ""
        snippet = f" {_code(fix.snippet)}" if fix.snippet else ""
        lines.append(f"- fix: {escaped(fix.title)}{escaped(proven + change)}{snippet}")
    return "\n".join(lines) + "\n\n"


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{one_line(text)}{fence}"


def _fenced(source: str) -> list[str]:
    longest = max((len(run) for run in re.findall(r"`+", source)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}python", one_line(source), fence, ""]


def escaped(text: str) -> str:
    """Text of a model in Markdown: no tags, links, mentions, emphasis or table cells of its own; backticks stay code."""
    parts = re.split(r"(`[^`]*`)", one_line(text))
    prose = r"[&<>@|#*~\[\]\\]|(?<!\w)_|_(?!\w)"
    parts[::2] = [re.sub(prose, lambda found: f"&#{ord(found[0])};", part) for part in parts[::2]]
    parts[1::2] = [part.replace("|", "\\|") for part in parts[1::2]]
    return "".join(parts)
