"""The ratchet: what a rule declares as its `RATCHET` may not get worse than the baseline, even below every threshold."""

from __future__ import annotations

import linecache
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import Layer, OpRow, SubjectReport
from stabdiag.rule import Ratchet, all_rules
from stabdiag.trace import Location


def losses(run: SubjectReport, before: Mapping[str, Mapping[str, Any]], name: str) -> Iterator[Finding]:
    """What got worse.

    `before` holds the baseline's measurements by precision ("" for the layers), `name` is its file.
    """
    for rule in all_rules().values():
        if rule.ratchet is None or rule.code not in run.rules_run:
            continue
        reported = [f for f in run.findings if f.code == rule.code and f.status == "new"]
        for precision, was, now in _measured(rule.ratchet.measure, run, before):
            if not rule.ratchet.worse(was, now) or any(not precision or precision in f.precisions for f in reported):
                continue
            yield rule.finding(
                Severity.ERROR,
                rule.ratchet.message.format(before=was, now=now, precision=precision),
                phase=rule.ratchet.phase,
                precisions=[precision] if precision else [],
                notes=[f"help: if that is meant, write the baseline again: --write-baseline {name}"],
                evidence={"baseline": was, "now": now},
                acceptable=False,
                **_at(_row(rule.ratchet, run, precision), run),
            )


def _measured(measure: str, run: SubjectReport, before: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float, float]]:
    """(precision, before, now) wherever both were measured; the precision is "" for what belongs to none."""
    now = {verdict.name: getattr(verdict, measure, None) for verdict in run.precisions} | {"": getattr(run, measure, None)}
    for precision, value in now.items():
        was = before.get(precision, {}).get(measure)
        if was is not None and value is not None and isfinite(was) and isfinite(value):
            yield precision, was, value


def _row(ratchet: Ratchet, run: SubjectReport, precision: str) -> Layer | OpRow | None:
    rows: list[Layer] | list[OpRow] = (
        [row for row in run.op_rows if row.precision == precision and row.phase == ratchet.phase]
        if precision
        else [layer for layer in run.layers if layer.main]
    )
    known = [row for row in rows if getattr(row, ratchet.column) is not None]
    return ratchet.extreme(known, key=lambda row: getattr(row, ratchet.column)) if known else None


def _at(row: Layer | OpRow | None, run: SubjectReport) -> dict[str, Any]:
    if row is None or not row.line:
        return {"path": run.subject.path}
    source = linecache.getline(row.path, row.line).rstrip("\r\n")
    return {
        "module": row.module,
        "op": row.op,
        "path": row.path,
        "location": Location(row.path, row.line, source=source),
    }
