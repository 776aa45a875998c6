"""The report for a person at a terminal: the verdict first, then the findings in a compiler's shape, then the layers.

Everything is built from `rich.text.Text`, which never interprets markup: names and messages come from someone's model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from io import StringIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from stabdiag.finding import Finding, Fix, Severity
from stabdiag.judging.report import PrecisionVerdict, Report, SubjectReport
from stabdiag.reports.parts.excerpt import excerpt
from stabdiag.reports.parts.layers import picture
from stabdiag.reports.parts.lines import hanging, prose
from stabdiag.reports.parts.place import columns, one_line, title
from stabdiag.reports.parts.training import training_lines

SUFFIX = ".txt"
WIDTH = 100  # columns when the output is no terminal
FIXES = 3  # shown per finding without --verbose
STYLES = {"error": "bold red", "warning": "bold yellow", "info": "bold cyan"}
VERDICT_STYLES = {
    "safe": "green",
    "safe-with-scaling": "green",
    "at-risk": "yellow",
    "fails": "bold red",
    "not-run": "dim",
}


def render(report: Report, *, width: int = WIDTH, color: bool = False, verbose: bool = False) -> str:
    """The report as text of at most `width` columns (source lines are cropped, everything else is wrapped)."""
    console = Console(file=StringIO(), width=width, force_terminal=color, color_system="standard" if color else None)
    pages = []
    for run in report.runs:
        with console.capture() as captured:
            for line in _page(run, width, verbose):
                line.rstrip()
                console.print(line, soft_wrap=True, markup=False, highlight=False, emoji=False)
        pages.append(captured.get())
    if len(report.runs) > 1:
        pages.append(f"{len(report.runs)} models: {counts(report.findings)}{_not_scanned(report)}\n")
    return "\n".join(pages)


def counts(findings: list[Finding]) -> str:
    """`1 error, 2 warnings · 1 baselined`."""
    new = Counter(finding.severity.value for finding in findings if finding.status == "new")
    words = [
        f"{new[severity]} {word}{'s' if new[severity] > 1 and plural else ''}"
        for severity, word, plural in (("error", "error", True), ("warning", "warning", True), ("info", "info", False))
        if new[severity]
    ]
    hidden = Counter(finding.status for finding in findings if finding.status != "new")
    return " · ".join([", ".join(words) or "no findings", *(f"{n} {status}" for status, n in sorted(hidden.items()))])


def _not_scanned(report: Report) -> str:
    failed = sum(run.error is not None for run in report.runs)
    return f" · {failed} not scanned" if failed else ""


def _page(run: SubjectReport, width: int, verbose: bool) -> Iterator[Text]:
    yield from _header(run, width, verbose)
    if run.error:
        yield Text()
        yield from hanging(Text().append("not scanned: ", STYLES["error"]), prose(run.error.message), width, 2)
        if verbose and run.error.detail:
            yield from (Text(f"  {one_line(line)}", "dim") for line in run.error.detail.splitlines())
    if run.precisions:
        yield Text()
        yield from _verdicts(run.precisions, width)
    for finding in run.findings:
        if finding.status == "new":
            yield Text()
            yield from _finding(finding, width, verbose)
    if run.layers:
        yield Text()
        yield from picture(run.layers, width, run.subject.path, everything=verbose)
    if run.training.get("rows"):
        yield Text()
        yield from training_lines(run.training)
    if verbose and run.coverage:
        yield Text()
        for key, value in run.coverage.items():
            yield from hanging(Text().append(f"{key}: ", "dim"), prose(str(value)), width, 2)
    if not run.error:
        yield Text()
        yield Text(counts(run.findings), _worst(run.findings))
        yield from _not_counted(run.findings, width)


def _not_counted(findings: list[Finding], width: int) -> Iterator[Text]:
    """Errors that fail no gate, because nobody asks for their precision, and how to make them count."""
    errors = [f for f in findings if f.status == "new" and f.severity is Severity.ERROR and f.weight is not f.severity]
    if errors:
        names = list(dict.fromkeys(p for f in errors for p in f.precisions))
        many = len(errors) > 1
        text = (
            f"{len(errors)} error{'s' if many else ''} in {' and '.join(names)}, which neither file nor command line asks for, "
            f"{'count' if many else 'counts'} as {'warnings' if many else 'a warning'} in the exit code; "
            f"`-p {','.join(names)}` or PRECISIONS = {tuple(names)!r} in the file makes {'them' if many else 'it'} count"
        )
        yield from hanging(Text(), prose(text), width, 0)


def _worst(findings: list[Finding]) -> str:
    new = [finding.severity for finding in findings if finding.status == "new"]
    return STYLES[max(new, key=lambda severity: severity.rank).value] if new else "bold green"


def _header(run: SubjectReport, width: int, verbose: bool) -> Iterator[Text]:
    subject = run.subject
    facts = [text for text in (subject.inputs, subject.objective) if text]
    if subject.parameters:
        facts.insert(0, f"{_short(subject.parameters)} parameters")
    head = Text().append(one_line(title(run)), "bold")
    yield from hanging(head, prose("".join(f" · {fact}" for fact in facts)), width, 2)
    if subject.unrun:
        said = (
            f"the file's own loss {subject.unrun}; `stabdiag run {subject.path}` runs it, or build_model(), example_inputs() "
            "and loss() in the file declare it"
        )
        yield from hanging(Text().append("  not run: ", STYLES["warning"]), prose(said), width, 4)
    # What the author declared needs no reason; every choice made for them has one.
    declared = {"inputs": {"inputs"}, "objective": {"loss"}, "model": {"inputs", "loss"}}
    for key, reason in subject.how.items():
        if verbose or not declared.get(key, set()) <= set(subject.declared):
            yield from hanging(Text().append(f"  {key}: ", "dim"), prose(reason), width, 4)


def _short(number: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _verdicts(precisions: list[PrecisionVerdict], width: int) -> Iterator[Text]:
    names = max(12, *(len(p.name) for p in precisions))
    words = max(9, *(cell_len(verdict_words(p)) for p in precisions))
    yield Text(f"{'precision':{names}} {'verdict':{words}} {'output error':>13} {'gradient error':>15} {'headroom':>9}", "dim")
    for p in precisions:
        row = Text(f"{p.name:{names}} ")
        row.append(verdict_words(p).ljust(words), VERDICT_STYLES[p.verdict])
        row.append(f" {_error(p.output_error):>13} {_error(p.gradient_error):>15} {_bits(p.headroom_bits):>9}")
        remark = Text("; ".join(one_line(text) for text in remarks(p)), "dim")
        start = cell_len(row.plain) + 2
        if remark and width - start >= min(28, cell_len(remark.plain)):
            yield from hanging(row.append("  "), remark, width, start)
        else:
            yield row
            if remark:
                yield from hanging(Text(" " * (names + 1)), remark, width, names + 1)


def verdict_words(p: PrecisionVerdict) -> str:
    """The verdict as people say it: "safe with scaling 2^12", "at risk at model.py:14" (the findings have the whole path)."""
    if p.verdict == "safe-with-scaling" and p.loss_scale:
        return f"safe with scaling 2^{p.loss_scale.hex().partition('p')[2].lstrip('+')}"
    words = p.verdict.replace("-", " ")
    bad = p.verdict in ("fails", "at-risk") and p.where
    return f"{words} at {one_line(p.where.rpartition('/')[2])}" if bad else words


def remarks(p: PrecisionVerdict) -> list[str]:
    """What stands behind a verdict: the reason, what flushes to 0, float32 islands, how it was measured."""
    found = [p.reason] if p.reason else []
    if p.gradient_underflow is not None and p.gradient_underflow >= 0.005 and "flush" not in p.reason:
        found.append(f"{100 * p.gradient_underflow:.0f} % of gradients flush to 0 unscaled")
    if p.float32_islands:
        found.append(f"safe when {', '.join(p.float32_islands)} stay in float32")
    if p.mode != "native" and p.verdict != "not-run":
        found.append(p.mode)
    return found


def _error(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.1e}"


def _bits(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f} bits" if abs(value) >= 10 else f"{value:.1f} bits"


def _finding(finding: Finding, width: int, verbose: bool) -> Iterator[Text]:
    head = Text().append(f"{finding.severity}[{finding.code}]", STYLES[finding.severity.value])
    head.append(f" {finding.name}: ", "bold")
    yield from hanging(head, prose(finding.message), width, 2)
    at = finding.location
    gutter = max(2, len(str(at.line)) if at else 0)
    arrow = Text(" " * gutter).append("--> ", "blue")
    yield from hanging(arrow, Text(_where(finding)), width, gutter + 4)
    if at and at.source:
        yield from excerpt(at, finding.label, gutter, width, STYLES[finding.severity.value])
    notes = [] if (at and at.source) or not finding.label else [f"here: {finding.label}"]
    for note in notes + finding.notes:
        key, _, text = note.partition(": ")
        yield from _note(key, prose(text), gutter, width)
    shown = finding.fixes if verbose else finding.fixes[:FIXES]
    for fix in shown:
        yield from _note("fix", _fix(fix), gutter, width)
        for line in fix.snippet.splitlines():
            yield Text(" " * (gutter + 8)).append(one_line(line), "green")
    if len(finding.fixes) > len(shown):
        yield Text(f"{'':{gutter}} = {len(finding.fixes) - len(shown)} more fixes with --verbose", "dim")


def _note(key: str, text: Text, gutter: int, width: int) -> Iterator[Text]:
    head = Text(" " * gutter).append(" = ", "blue").append(f"{one_line(key)}: ", "bold")
    return hanging(head, text, width, gutter + 5 + len(key))


def _where(finding: Finding) -> str:
    at = finding.location
    column = columns(at)[0] if at else None
    words = [f"{at.path}:{at.line}{f':{column}' if column else ''}" if at else finding.path or "no source line"]
    if at and at.function and not at.function.startswith("<"):
        words.append(f"in {at.function}")
    within = [finding.module and f"module {finding.module}", finding.op and f"{finding.phase} {finding.op}"]
    words += [f"· {part}" for part in (*within, ", ".join(finding.precisions)) if part]
    if at and at.library not in ("", f"{at.path}:{at.line}"):
        words.append(f"· ran in {at.library}")
    return one_line(" ".join(words))


def _fix(fix: Fix) -> Text:
    text = prose(fix.title)
    change = f": {fix.before} → {fix.after}" if fix.before or fix.after else ""
    if fix.proven:
        text.append(f" · proven{change}", "green")
    elif fix.proven is False:
        text.append(f" · tried, does not help{change}", "yellow")
    if fix.note:
        text.append(f" · {one_line(fix.note)}", "dim")
    return text
