"""What the page's script draws, as compact JSON: columns instead of rows, each text once, one digit per exponent."""

from __future__ import annotations

import json
from dataclasses import fields
from math import isfinite, log2
from typing import Any

from stabdiag.judging.report import OpRow, Report, SubjectReport

LEVELS = 35  # the digits of base 36
WORDS = ("precision", "phase", "module", "op", "path", "shape", "dtype")
LEFT_OUT = ("exponents", "min", "max", "dtype", "gradient_max_abs")


def data(report: Report) -> str:
    """The JSON, safe inside a script element: no `<` of a model's text can end it."""
    document = {"runs": [_run(run, index) for index, run in enumerate(report.runs)]}
    return json.dumps(document, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _run(run: SubjectReport, index: int) -> dict[str, Any]:
    return {
        "ops": columns(run.op_rows),
        "training": [{key: _short(value) for key, value in row.items()} for row in run.training.get("rows", [])],
        "findings": [
            {"id": f"run-{index}-finding-{number}", "path": finding.location.path, "line": finding.location.line}
            for number, finding in enumerate(run.findings)
            if finding.location is not None and finding.status == "new"
        ],
    }


def columns(rows: list[OpRow]) -> dict[str, Any]:
    """Rows of the table of ops, column by column; texts are indices into `strings`."""
    strings: dict[str, int] = {}
    names = [field.name for field in fields(OpRow) if field.name not in LEFT_OUT]
    table = {
        name: [
            strings.setdefault(getattr(row, name), len(strings)) if name in WORDS else _short(getattr(row, name))
            for row in rows
        ]
        for name in names
    }
    words = [name for name in names if name in WORDS]
    return {"columns": table, "words": words, "strings": list(strings), "exponents": [levels(row.exponents) for row in rows]}


def levels(exponents: dict[int, int]) -> str:
    """A histogram over exponents as "first:digits": one base-36 digit per exponent, logarithmic in its share, 0 for none."""
    if not exponents:
        return ""
    total, first, last = sum(exponents.values()), min(exponents), max(exponents)
    floor = log2(1 / total) - 1  # below the share of a single value

    def digit(count: int) -> str:
        level = round(LEVELS * (1 - log2(count / total) / floor)) if count else 0
        return "0123456789abcdefghijklmnopqrstuvwxyz"[max(1, level) if count else 0]

    return f"{first}:" + "".join(digit(exponents.get(exponent, 0)) for exponent in range(first, last + 1))


def _short(value: Any) -> Any:
    """Three digits suffice to draw; what is not finite is absent."""
    if isinstance(value, float):
        return float(f"{value:.3g}") if isfinite(value) else None
    return value
