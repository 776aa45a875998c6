"""The ratchet: headroom and gradient ratio may not get worse than the baseline, even where no threshold is crossed."""

from __future__ import annotations

import linecache
from collections.abc import Iterator, Mapping
from math import log10
from typing import Any

from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import Layer, OpRow, SubjectReport
from stabdiag.trace import Location

BITS = 1.0  # headroom that may not be lost, in bits
DECADES = 1.0  # ratio of first to last gradient that may not be lost, in powers of ten
ENDS = 0.1  # share of the layers that is averaged at either end, as in SD101


def gradient_ratio(layers: list[Layer]) -> float | None:
    """Gradient at the first tenth of the main path over that at the last, None when it was not measured or is 0."""
    gradients = [layer.gradient_rms for layer in layers if layer.main and layer.gradient_rms is not None]
    ends = max(1, round(ENDS * len(gradients)))
    first, last = sum(gradients[:ends]) / ends, sum(gradients[-ends:]) / ends
    return first / last if len(gradients) > 1 and first > 0 and last > 0 else None


def losses(run: SubjectReport, before: Mapping[str, Mapping[str, Any]], name: str) -> Iterator[Finding]:
    """What got worse.

    `before` holds the baseline's measurements by precision ("" for the layers), `name` is its file.
    """
    found = [*_headroom(run, before), *_gradient(run, before.get("", {}).get("gradient_ratio"))]
    for finding in found:
        same = [f for f in run.findings if f.code == finding.code and f.status == "new"]
        said = any(not finding.precisions or set(finding.precisions) & set(f.precisions) for f in same)
        if finding.code in run.rules_run and not said:
            finding.notes = [f"help: if that is meant, write the baseline again: --write-baseline {name}"]
            yield finding


def _headroom(run: SubjectReport, before: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    for p in run.precisions:
        was = before.get(p.name, {}).get("headroom_bits")
        if was is None or p.headroom_bits is None or was - p.headroom_bits < BITS:
            continue
        rows = [row for row in run.op_rows if row.precision == p.name and row.phase == "forward"]
        measured = [(row.headroom_bits, row.index, row) for row in rows if row.headroom_bits is not None]
        yield Finding(
            "SD303",
            "low-headroom",
            Severity.ERROR,
            f"headroom in {p.name} fell from {was:.1f} to {p.headroom_bits:.1f} bits since the baseline",
            precisions=[p.name],
            evidence={"baseline": was, "now": p.headroom_bits},
            **_at(min(measured)[2] if measured else None, run),
        )


def _gradient(run: SubjectReport, was: float | None) -> Iterator[Finding]:
    now = gradient_ratio(run.layers)
    if not was or not now or abs(log10(now)) - abs(log10(was)) < DECADES:
        return
    vanishing = now < 1
    gains = [
        (layer.gradient_gain, place, layer) for place, layer in enumerate(run.layers) if layer.main and layer.gradient_gain
    ]
    yield Finding(
        "SD101" if vanishing else "SD102",
        "vanishing-gradient" if vanishing else "exploding-gradient",
        Severity.ERROR,
        f"since the baseline, the gradient of the first layers went from {was:.2g} to {now:.2g} of the last layers'",
        phase="backward",
        evidence={"baseline": was, "now": now},
        **_at((min if vanishing else max)(gains)[2] if gains else None, run),
    )


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
