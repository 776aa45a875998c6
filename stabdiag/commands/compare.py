"""`stabdiag compare`: what changed between two saved runs. Does not import torch."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from stabdiag.commands.output import to_stdout
from stabdiag.commands.report import read
from stabdiag.errors import one_of
from stabdiag.finding import Severity


def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD.json", help="The run before.")],
    new: Annotated[Path, typer.Argument(metavar="NEW.json", help="The run after.")],
    format: Annotated[str, typer.Option("--format", "-f", metavar="FORMAT", help="text or json.")] = "text",
    fail_on: Annotated[
        str, typer.Option(metavar="SEVERITY", help="Least severity of a new finding that is a regression, or never.")
    ] = "error",
) -> int:
    """Compare two saved runs: exit 1 on a regression."""
    from stabdiag.gate.compare import compare as changes_between

    one_of("format", format, ("text", "json"))
    one_of("severity", fail_on, [*(severity.value for severity in Severity), "never"])
    changes = changes_between(read(old), read(new), fail_on)
    regressions = sum(change.regression for of_model in changes.values() for change in of_model)
    if format == "json":
        plain = {model: [asdict(change) for change in of_model] for model, of_model in changes.items()}
        to_stdout(json.dumps(plain, indent=2, ensure_ascii=False) + "\n")
        return int(regressions > 0)
    from stabdiag.reports.parts.place import one_line

    for model, of_model in changes.items():
        lines = [f"{'!' if c.regression else ' '} {c.kind:8}  {one_line(c.text)}\n" for c in of_model]
        to_stdout(f"{one_line(model)}\n" + ("".join(lines) or "  no change\n") + "\n")
    words = {0: "no regressions", 1: "1 regression"}.get(regressions, f"{regressions} regressions")
    to_stdout(f"{words} (marked !)\n" if regressions else f"{words}\n")
    return int(regressions > 0)
