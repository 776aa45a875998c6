"""The baseline: findings that were accepted, and what the models measured then, so that nothing gets worse unseen.

A file of JSON lines: a header, then one sorted line per accepted finding and per measured precision, so that git can
merge it. Findings are known by fingerprint, which holds no line number and no measured value.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stabdiag.errors import UserError
from stabdiag.finding import Finding
from stabdiag.gate.ratchet import losses
from stabdiag.judging.report import Report, SubjectReport
from stabdiag.reports.json import plain
from stabdiag.reports.parts.place import title
from stabdiag.rules.sd001_unused_suppression import unused
from stabdiag.trace import Location

SCHEMA = "stabdiag-baseline/v1"


@dataclass
class Baseline:
    """What was accepted: entries by fingerprint, measurements by model and precision ("" for the layers)."""

    name: str
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    measured: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)  # fingerprint -> line of the file


def render(report: Report, previous: Baseline | None = None) -> str:
    """A baseline that accepts every finding of the report that is not suppressed.

    What `previous` holds about models that are not in the report stays.
    """
    lines: dict[tuple[str, ...], dict[str, Any]] = {}
    scanned = {title(run) for run in report.runs}
    for entry in previous.entries.values() if previous else ():
        if entry["model"] not in scanned:
            lines["finding", entry["model"], entry["code"], entry["fingerprint"]] = entry
    for (model, precision), entry in previous.measured.items() if previous else ():
        if model not in scanned:
            lines["measured", model, precision] = entry
    for run in report.runs:
        for finding in run.findings:
            if finding.status == "suppressed" or not finding.acceptable:
                continue
            key = ("finding", title(run), finding.code, finding.fingerprint)
            if key in lines:
                lines[key]["count"] = lines[key].get("count", 1) + 1
            else:
                lines[key] = {"model": title(run), "fingerprint": finding.fingerprint} | _identity(finding)
        for measured in _measured(run):
            lines["measured", title(run), measured.get("precision", "")] = measured
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in ({"schema": SCHEMA}, *_sorted(lines)))


def _sorted(lines: dict[tuple[str, ...], dict[str, Any]]) -> list[dict[str, Any]]:
    return [lines[key] for key in sorted(lines)]


def _identity(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "path": finding.path,
        "module": finding.module,
        "op": finding.op,
        "phase": finding.phase,
        "precisions": finding.precisions,
    }


def _measured(run: SubjectReport) -> Iterator[dict[str, Any]]:
    for p in run.precisions:
        if p.headroom_bits is not None:
            values = {
                "headroom_bits": p.headroom_bits,
                "output_error": p.output_error,
                "gradient_error": p.gradient_error,
            }
            yield {"model": title(run), "precision": p.name} | plain(values)
    if (ratio := run.gradient_ratio) is not None:
        yield {"model": title(run), "gradient_ratio": plain(ratio)}


def load(path: str) -> Baseline:
    """The baseline in a file. Raises UserError: missing, truncated, a merge conflict, from a newer version."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        hint = f"; write it with `--write-baseline {path}`" if isinstance(error, FileNotFoundError) else ""
        raise UserError(f"cannot read baseline {path}: {error.strerror}{hint}") from None
    except UnicodeDecodeError:
        raise UserError(f"baseline {path} is no UTF-8 text; write it again with `--write-baseline {path}`") from None
    baseline = Baseline(path)
    schema = None
    for number, line in enumerate(lines, 1):
        if line.startswith(("<<<<<<<", "=======", ">>>>>>>")):
            raise UserError(f"baseline {path} has a merge conflict in line {number}; keep the lines of both sides")
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            schema = entry.get("schema", schema)
            if schema == SCHEMA and "fingerprint" in entry:
                entry["model"], entry["code"], entry["precisions"] = (
                    str(entry["model"]),
                    str(entry["code"]),
                    [*entry["precisions"]],
                )
                baseline.entries[str(entry["fingerprint"])] = entry
                baseline.lines[str(entry["fingerprint"])] = number
            elif schema == SCHEMA and "model" in entry:
                baseline.measured[str(entry["model"]), str(entry.get("precision", ""))] = entry
        except (ValueError, AttributeError, KeyError, TypeError):
            raise UserError(f"baseline {path} is damaged in line {number}; write it again with `--write-baseline`") from None
    if schema is None:
        raise UserError(f'{path} is no baseline: it does not begin with {{"schema": "{SCHEMA}"}}')
    if schema != SCHEMA:
        raise UserError(f"baseline {path} has schema `{schema}`, this version reads `{SCHEMA}`; upgrade stabdiag")
    return baseline


def apply(report: Report, baseline: Baseline) -> list[list[Finding]]:
    """Mark accepted findings. For each run, findings about what got worse and about entries that no longer occur."""
    left = Counter({fingerprint: int(entry.get("count", 1)) for fingerprint, entry in baseline.entries.items()})
    occurred = set()
    for run in report.runs:
        for finding in run.findings:
            occurred.add(finding.fingerprint)
            if finding.status == "new" and left[finding.fingerprint] > 0:
                left[finding.fingerprint] -= 1
                finding.status = "baselined"
    found: list[list[Finding]] = []
    for run in report.runs:
        measured = {precision: values for (model, precision), values in baseline.measured.items() if model == title(run)}
        new = [*losses(run, measured, baseline.name), *_stale(run, baseline, occurred)] if run.error is None else []
        found.append(new)
    return found


def _stale(run: SubjectReport, baseline: Baseline, occurred: set[str]) -> Iterator[Finding]:
    probed = {p.name for p in run.precisions if p.verdict != "not-run"}
    for fingerprint, entry in sorted(baseline.entries.items()):
        if entry["model"] != title(run) or fingerprint in occurred or entry["code"] not in run.rules_run:
            continue
        if not probed.issuperset(set(entry["precisions"]) - {"float64"}):  # the reference has no verdict of its own
            continue
        where = " ".join(str(entry[key]) for key in ("module", "op") if entry.get(key)) or "the whole model"
        yield unused(
            f"the accepted {entry['code']} at `{where}` no longer occurs",
            f"write the baseline again: --write-baseline {baseline.name}",
            str(entry.get("path", run.subject.path)),
            Location(Path(baseline.name).as_posix(), baseline.lines[fingerprint]),
        )
