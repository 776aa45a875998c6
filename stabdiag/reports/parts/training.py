"""The training steps of `--steps` as lines: the loss of every precision, as numbers and as a curve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from rich.text import Text

EIGHTHS = "▁▂▃▄▅▆▇█"
POINTS = 40  # of a curve; longer ones are thinned evenly


def training_lines(training: Mapping[str, Any]) -> Iterator[Text]:
    """A heading and one line per precision (seed 0), from `SubjectReport.training`; nothing without steps."""
    rows = [row for row in training.get("rows", []) if row.get("seed", 0) == 0]
    if not rows:
        return
    losses: dict[str, list[float | None]] = {}
    for row in rows:
        losses.setdefault(row["precision"], []).append(row["loss"])
    skipped = {name: sum(bool(row.get("skipped")) for row in rows if row["precision"] == name) for name in losses}
    optimizer = training.get("optimizer") or {}
    chosen = f" · {optimizer['name']} at lr {optimizer['lr']:g}" if optimizer.get("lr") is not None else ""
    ended = " · interrupted" if training.get("interrupted") else ""
    yield Text(f"training     loss over {max(map(len, losses.values()))} steps{chosen}{ended}", "dim")
    for name, curve in losses.items():
        line = Text(f"{name:12} {_number(curve[0])} → {_number(curve[-1])}  ").append(sparkline(curve), "cyan")
        yield line.append(f"  {skipped[name]} steps skipped", "dim") if skipped[name] else line


def sparkline(values: Sequence[float | None]) -> str:
    """A curve in block characters, its range from its own minimum to its own maximum; `×` where the loss is not finite."""
    if len(values) > POINTS:
        values = [values[round(i * (len(values) - 1) / (POINTS - 1))] for i in range(POINTS)]
    finite = [value for value in values if value is not None and isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    step = (high - low) / (len(EIGHTHS) - 1) or 1.0
    return "".join("×" if value is None or not isfinite(value) else EIGHTHS[round((value - low) / step)] for value in values)


def _number(value: float | None) -> str:
    return "not finite" if value is None or not isfinite(value) else f"{value:.3g}"
