"""How many batches, seeds and precisions fit the budget of a scan: decided from counted work, never from the clock."""

from __future__ import annotations

from dataclasses import dataclass

from stabdiag.settings.request import ScanRequest
from stabdiag.subject.subject import Subject
from stabdiag.trace import Trace

# Cost of one recorded step of each kind in bare float32 training steps, measured by `benchmarks/speed.py` on two CPU cores
# (median over its three models, rounded up).
_COST = {"float64": 2.5, "float32": 1.3, "float16": 2.0, "bfloat16": 2.0, "amp-float16": 2.2, "amp-bfloat16": 2.2}
_TWO_TIME = 1.5 + _COST["float32"]  # the first of the two optimizer steps takes the recorded gradients


@dataclass(frozen=True)
class Plan:
    """What will be run. Two batches and two seeds are dropped before the two-time test, that before a precision."""

    precisions: tuple[str, ...]
    batches: int
    seeds: int
    two_time: bool

    def costs(self) -> dict[str, float]:
        """What is spent on what, in bare training steps."""
        spent = {name: _COST[name] for name in ("float64", *self.precisions)}
        spent["batches"] = (self.batches - 1) * _COST["float32"]
        spent["seeds"] = (self.seeds - 1) * _COST["float32"]
        spent["two-time test"] = _TWO_TIME if self.two_time else 0.0
        return {name: round(cost, 1) for name, cost in spent.items() if cost}

    def done(self, trace: Trace) -> float:
        """Share of the plan that has run."""
        ran = sum(_COST[run.precision] for run in trace.runs)
        return min(0.99, ran / sum(self.costs().values()))


def plan(subject: Subject, request: ScanRequest) -> Plan:
    """Decide what fits `request.budget`. What the request names itself (precisions, batches, seeds) is never cut."""
    precisions = tuple(dict.fromkeys(p for p in ("float32", *request.precisions) if not p.startswith("float8")))
    fixed = _COST["float64"] + sum(_COST[p] for p in precisions if p != "float64")
    left = request.budget - fixed
    two_time = left >= _TWO_TIME and any(p.requires_grad for p in subject.model.parameters())
    left -= _TWO_TIME if two_time else 0.0
    batches = request.batches
    if batches is None:
        batches = 2 if left >= _COST["float32"] else 1
        left -= (batches - 1) * _COST["float32"]
    seeds = request.seeds
    if seeds is None:
        seeds = 2 if left >= _COST["float32"] else 1
    return Plan(precisions, min(batches, subject.batches), seeds if subject.rebuild is not None else 1, two_time)
