"""A Trace as a file: JSON, dataclasses as arrays of their fields in order, source locations in one table."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from stabdiag.trace import Location, NotRun, Op, Parameter, Run, Stats, SubjectFacts, Trace, Value

VERSION = 1


def dumps(trace: Trace) -> str:
    """The trace as text."""
    locations: dict[Location, int] = {}

    def pack(item: Any) -> Any:
        if isinstance(item, Location):
            return locations.setdefault(item, len(locations))
        if isinstance(item, Stats):
            *head, histogram = (getattr(item, f.name) for f in fields(item))
            return [*head, list(histogram.items())]
        if hasattr(item, "__dataclass_fields__"):
            return [pack(getattr(item, f.name)) for f in fields(item)]
        if isinstance(item, (list, tuple)):
            return [pack(i) for i in item]
        if isinstance(item, dict):
            return {str(k): pack(v) for k, v in item.items()}
        return item

    body = pack(trace)
    table = [[getattr(at, f.name) for f in fields(at)] for at in locations]
    return json.dumps({"version": VERSION, "locations": table, "trace": body})


def loads(text: str) -> Trace:
    """The trace again. Raises ValueError for another version's file."""
    data = json.loads(text)
    if data.get("version") != VERSION:
        raise ValueError(f"a trace file of version {VERSION} was expected, this is version {data.get('version')}: scan again")
    table = [Location(*at) for at in data["locations"]]

    def stats(item: Any) -> Stats | None:
        if item is None:
            return None
        have: dict[str, Any] = dict(zip((f.name for f in fields(Stats)), item, strict=True))
        have["histogram"] = {int(exponent): int(count) for exponent, count in have["histogram"]}
        return Stats(**have)

    def place(item: Any) -> Location | None:
        return None if item is None else table[item]

    def value(item: Any) -> Value:
        kind, name, op, dtype, shape, unit_dim, measured, gradient, error = item
        return Value(kind, name, op, dtype, tuple(shape), unit_dim, stats(measured), stats(gradient), error)

    def op(item: Any) -> Op:
        have = dict(zip((f.name for f in fields(Op)), item, strict=True))
        have["location"] = place(have["location"])
        return Op(**have)

    def parameter(item: Any) -> Parameter:
        have = dict(zip((f.name for f in fields(Parameter)), item, strict=True))
        have |= {"stats": stats(have["stats"]), "gradient": stats(have["gradient"]), "shape": tuple(have["shape"])}
        have |= {f: place(have[f]) for f in ("made_at", "initialised_at", "initialised_for", "copied_at")}
        return Parameter(**have)

    def run(item: Any) -> Run:
        have = dict(zip((f.name for f in fields(Run)), item, strict=True))
        have["ops"] = [op(o) for o in have["ops"]]
        have["values"] = [value(v) for v in have["values"]]
        have["parameters"] = [parameter(p) for p in have["parameters"]]
        have["buffers"] = {n: stats(s) for n, s in have["buffers"].items()}
        return Run(**have)

    have = dict(zip((f.name for f in fields(Trace)), data["trace"], strict=True))
    have["subject"] = SubjectFacts(*have["subject"])
    have["runs"] = [run(r) for r in have["runs"]]
    have["not_run"] = [NotRun(*n) for n in have["not_run"]]
    have["data"] = {n: place(at) for n, at in have["data"].items()}
    have["modules"] = {name: place(at) for name, at in have["modules"].items()}
    return Trace(**have)
