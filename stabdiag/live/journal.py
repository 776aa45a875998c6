"""What is written while a training is watched: one JSON line per event, and reports at the end."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import Any

from stabdiag.judging.report import Report
from stabdiag.reports import renderer

REPORTS = {"text": "report.txt", "html": "report.html", "csv": "findings.csv", "json": "report.json"}


class Journal:
    """Writes below one directory; the first write makes it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def line(self, event: str, **facts: Any) -> None:
        """Add one line to `steps.jsonl`: the event, and plain numbers, strings and lists. What is not finite is null."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "steps.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event} | _plain(facts), ensure_ascii=False, allow_nan=False) + "\n")

    def reports(self, report: Report) -> None:
        """The report in every form of REPORTS."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for format, name in REPORTS.items():
            (self.directory / name).write_text(renderer(format)(report), encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value
