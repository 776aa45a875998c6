"""The layer picture and the table of ops, from a trace."""

from __future__ import annotations

from math import isfinite

from stabdiag.evidence.graph.main_path import main_path
from stabdiag.judging.report import Layer, OpRow
from stabdiag.trace import Op, Stats, Trace, Value
from stabdiag.trace.formats import format_of


def layers_of(trace: Trace) -> list[Layer]:
    """One row per station of the main path, with the gain of each over its neighbour."""
    run = trace.base
    if run is None:
        return []
    rows: list[Layer] = []
    for station in main_path(run):
        at = trace.place(station.op)
        forward, gradient = _rms(station.forward), _rms(station.gradient)
        row = Layer(
            station.layers[-1] or station.op.module,
            station.op.name,
            at.path if at else "",
            at.line if at else 0,
            True,
            forward,
            gradient,
        )
        if rows:
            row.forward_gain = _ratio(forward, rows[-1].forward_rms)
            rows[-1].gradient_gain = _ratio(rows[-1].gradient_rms, gradient)
        rows.append(row)
    return rows


def op_rows(trace: Trace) -> list[OpRow]:
    """Every measured op of every run of the model as built (seed 0, before any step)."""
    rows = []
    for run in trace.runs:
        if run.seed or run.step:
            continue
        limits = format_of(run.precision)
        for op in run.ops:
            value = run.output_of(op)
            if value is None or value.stats is None or op.view:
                continue
            rows.append(_row(trace, run.precision, op, value, value.stats, value.stats.headroom(limits)))
    return rows


def _row(trace: Trace, precision: str, op: Op, value: Value, stats: Stats, headroom: float) -> OpRow:
    at = trace.place(op)
    return OpRow(
        index=op.index,
        precision=precision,
        phase=op.phase,
        module=op.module or op.layer,
        op=op.name,
        path=at.path if at else "",
        line=at.line if at else 0,
        shape="x".join(map(str, value.shape)),
        dtype=value.dtype,
        rms=_rms(stats),
        min=stats.min if isfinite(stats.min) else None,
        max=stats.max if isfinite(stats.max) else None,
        max_abs=stats.max_abs,
        zeros=stats.zeros / stats.count if stats.count else None,
        nonfinite=stats.nonfinite,
        headroom_bits=headroom if isfinite(headroom) else None,
        gradient_rms=_rms(value.gradient),
        gradient_max_abs=value.gradient.max_abs if value.gradient is not None else None,
        error=value.error,
        exponents=stats.histogram,
    )


def _rms(stats: Stats | None) -> float | None:
    if stats is None or not stats.sampled or stats.nonfinite:
        return None
    return stats.rms if isfinite(stats.rms) else None


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None
