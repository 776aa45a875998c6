"""CSV, written by pandas: one row per finding, and the tables of `--layers` and `--steps-csv`."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from stabdiag.finding import Finding
from stabdiag.judging.report import OpRow, PrecisionVerdict, Report, SubjectReport
from stabdiag.reports.json import plain
from stabdiag.reports.parts.place import columns, one_line, title

if TYPE_CHECKING:
    import pandas

SUFFIX = ".csv"
FINDING_COLUMNS = """
    model code name severity status message module op phase precisions path line column function label
    cause fix fix_snippet fix_proven fix_before fix_after fingerprint
""".split()  # noqa: SIM905
STEP_COLUMNS = "model precision seed step loss gradient_norm scale skipped".split()  # noqa: SIM905


def render(report: Report) -> str:
    """One row per finding, suppressed and baselined ones included (column `status`)."""
    return _text(frame(report))


def frame(report: Report) -> pandas.DataFrame:
    """The findings as a table, one row each; the columns are there when there are no findings, too."""
    import pandas

    rows = [_row(run, finding) for run in report.runs for finding in run.findings]
    return pandas.DataFrame(rows, columns=FINDING_COLUMNS).astype({"line": "Int64", "column": "Int64"})


def _row(run: SubjectReport, finding: Finding) -> dict[str, Any]:
    at = finding.location
    fix = finding.fixes[0] if finding.fixes else None
    return {
        "model": title(run),
        "code": finding.code,
        "name": finding.name,
        "severity": finding.severity.value,
        "status": finding.status,
        "message": finding.message,
        "module": finding.module,
        "op": finding.op,
        "phase": finding.phase,
        "precisions": " ".join(finding.precisions),
        "path": at.path if at else run.subject.path,
        "line": at.line if at else None,
        "column": columns(at)[0] if at else None,
        "function": at.function if at else "",
        "label": finding.label,
        "cause": "; ".join(note.partition(": ")[2] for note in finding.notes if note.startswith("cause: ")),
        "fix": fix.title if fix else "",
        "fix_snippet": fix.snippet if fix else "",
        "fix_proven": {True: "yes", False: "no", None: ""}[fix.proven if fix else None],
        "fix_before": fix.before if fix else "",
        "fix_after": fix.after if fix else "",
        "fingerprint": finding.fingerprint,
    }


def layers(report: Report) -> str:
    """One row per op, precision and phase of every subject; not measured is empty, not finite is `inf` or `nan`."""
    return _text(layers_frame(report))


def layers_frame(report: Report) -> pandas.DataFrame:
    """The same as a table."""
    import pandas

    names = [f.name for f in fields(OpRow) if f.name != "exponents"]
    rows = [{"model": title(run)} | {n: getattr(row, n) for n in names} for run in report.runs for row in run.op_rows]
    return pandas.DataFrame(rows, columns=["model", *names])


def verdicts_frame(report: Report) -> pandas.DataFrame:
    """One row per subject and precision."""
    import pandas

    names = [f.name for f in fields(PrecisionVerdict) if f.name != "float32_islands"]
    rows = [{"model": title(run)} | {n: getattr(p, n) for n in names} for run in report.runs for p in run.precisions]
    return pandas.DataFrame(rows, columns=["model", *names])


def steps(report: Report) -> str:
    """One row per seed and optimizer step of every subject, from the curves of `SubjectReport.training`."""
    import pandas

    rows = [{"model": title(run)} | plain(row) for run in report.runs for row in run.training.get("rows", [])]
    return _text(pandas.DataFrame(rows) if rows else pandas.DataFrame(columns=STEP_COLUMNS))


def _text(table: pandas.DataFrame) -> str:
    text: str = table.map(_inert).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return text


def _inert(cell: Any) -> Any:
    """Text as a spreadsheet shows it instead of running it: a formula begins with one of these characters. Names and messages
    come from the scanned code. https://owasp.org/www-community/attacks/CSV_Injection"""
    if not isinstance(cell, str):
        return cell
    cell = one_line(cell)
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell
