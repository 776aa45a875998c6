"""The search for the nearest state of its sources in which an expression breaks.

Uniform variations and special shapes first, all at once; where none of them is plausible and breaks, a descent: along the
gradient of the distance between the operand and its singular point, in the sources' own units, with a line search per step.
Found states are tried in every format.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite
from typing import Any

import torch
from torch import Tensor

from stabdiag.evidence.expressions.forms import EXP, GENERAL, LATE_CLAMP, RATIO, SIGMOID_BY_HAND, Expression
from stabdiag.evidence.expressions.plausible import plausibility
from stabdiag.probe import states
from stabdiag.probe.states import DATA, FACTORS, PARAMETERS, Source, State
from stabdiag.probe.subexpression import Lanes, Subexpression
from stabdiag.trace import Run
from stabdiag.trace.formats import FORMATS
from stabdiag.trace.ops import limits

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LARGEST = 2**26  # elements of all tensors of an expression, all lanes together: autograd keeps them
_DIRECTIONS = ["scale", "negate", "raise", "lower"]
_STEPS = 8  # of a descent
_REFINED = 6  # parts of the distance between two factors, where the bound of what is plausible lies between them
# Lengths of one step, in the sources' units.
_LENGTHS = {DATA: [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0], PARAMETERS: [0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5]}
_ALONG_ONE_AXIS = frozenset((EXP, LATE_CLAMP, RATIO, SIGMOID_BY_HAND))  # uniform variations take these to their end


class Search:
    """Finds where one expression breaks, for one group of its sources.

    Args:
        run: the float32 run; expression: in it; sub: its ops, ready to run again.
        group: "data" or "parameters"; sources: what is varied.
        elements: of all values of the expression, one lane.
        afford: called before work with the number of lanes, and with whether the operand alone is computed and
            differentiated (None: the whole expression is); raises where the budget does not hold it.
    """

    def __init__(
        self,
        run: Run,
        expression: Expression,
        sub: Subexpression,
        group: str,
        sources: list[Source],
        elements: int,
        afford: Callable[[int, bool | None], None],
    ) -> None:
        self.run, self.expression, self.sub, self.group, self.sources = run, expression, sub, group, sources
        self.elements, self.afford = elements, afford
        self.observed: dict[str, float | None] = {}
        self._tried: list[State] = [
            *([] if all(s.fixed for s in sources) else states.uniform(group, sources, _DIRECTIONS)),
            *(states.structured(sources) if group == DATA else []),
        ]

    def breaks(self, format: str) -> dict[str, Any]:
        """kind ("value", "gradient") -> the most plausible uniform variation or special shape that breaks it, if one does."""
        found = self._of(self._tried, format)
        for kind, broken in list(found.items()):
            if self.group == DATA and broken["how"] in _DIRECTIONS and 1 < plausibility(broken) < FACTORS[1]:
                between = [broken["factor"] / FACTORS[1] ** (part / _REFINED) for part in range(1, _REFINED)]
                nearer = self._of(states.uniform(DATA, self.sources, [broken["how"]], between), format)
                found[kind] = min((broken, nearer.get(kind, broken)), key=plausibility)
        if format == "float32" and found:  # narrower formats break the same way, only sooner
            ways = {b["how"] for b in found.values()} & set(_DIRECTIONS)
            self._tried = [s for s in self._tried if s.how not in _DIRECTIONS or s.how in (ways or _DIRECTIONS)]
        return found

    def descent(self, formats: list[str]) -> dict[str, dict[str, Any]]:
        """Format -> kind -> the most plausible point of a descent that breaks it. Nothing where uniform variations reach all
        that a descent does."""
        path = [] if self.expression.form in _ALONG_ONE_AXIS or all(s.fixed for s in self.sources) else self._path()
        return {format: found for format in formats if path and (found := self._of(path, format))}

    def _of(self, tried: list[State], format: str) -> dict[str, Any]:
        if not tried:
            return {}
        tried = [states.observed(self.sources), *tried]
        lanes = self._vary(tried, format)
        if not self.observed:
            self.observed = _link(lanes, 0)
        found: dict[str, Any] = {}
        for kind, counts in (("value", lanes.value), ("gradient", lanes.gradient)):
            broken = [i for i in range(len(tried)) if _breaks_here(lanes.operand, counts, i)]
            if kind == "value" and self.expression.form in GENERAL:  # not because another branch of a where breaks
                broken = [i for i in broken if lanes.inner[i] > (lanes.inner[0] if i else 0)]
            if kind == "value" and self._passes_through():
                broken = sorted({*broken, *(i for i, crossed in enumerate(lanes.crossed) if crossed)})
            if broken:
                found[kind] = min((self._entry(tried[i], lanes, i) for i in broken), key=plausibility)
        for entry in found.values():
            entry["state"] = states.recorded(self.run, self.group, self.sources, entry.pop("at"))
        return found

    def _entry(self, state: State, lanes: Lanes, lane: int) -> dict[str, Any]:
        return {
            "group": self.group,
            "how": state.how,
            "factor": state.factor,
            "moved": states.distance(self.group, self.sources, state),
            "largest": states.largest(state),
            **_link(lanes, lane),
            "hidden": lanes.inner[lane] > 0,
            "at": state,
        }

    def _passes_through(self) -> bool:
        """Whether a change of sign means a pole on the way: not where only the gradient ends, as for a root."""
        danger = self.run.ops[self.expression.danger]
        ends = limits(danger.name, danger.attributes, FORMATS["float32"])
        touching = self.expression.signed != self.expression.operand
        return any(e.kind == "value" and e.at == 0 and (e.side == "at" or touching) for e in ends)

    def _path(self) -> list[State]:
        """The points of a descent of the signed value towards the nearest end of the dangerous op."""
        measure = self._measure()
        if measure is None:
            return []
        point = {s.id: s.tensor for s in self.sources}
        best, path = inf, []
        for _ in range(_STEPS):
            self.afford(1, True)
            slope = self.sub.slope(point, measure)
            candidates = self._steps(point, slope)
            if not candidates:
                break
            self.afford(len(candidates), False)
            stacked = {s.id: torch.stack([c[s.id] for c in candidates]) for s in self.sources}
            reached = self.sub.distances(stacked, measure).tolist()
            beyond = [i for i, d in enumerate(reached) if d <= 0]
            tried = [State("descent", 1.0, candidate) for candidate in candidates]
            if beyond:  # the shortest way there
                nearest = min(beyond, key=lambda i: states.distance(self.group, self.sources, tried[i]))
            else:
                nearest = min(range(len(reached)), key=reached.__getitem__)
            if not reached[nearest] < best:
                break
            best, point = reached[nearest], candidates[nearest]
            path.append(tried[nearest])
            if best <= 0:
                break
        return path

    def _steps(self, point: dict[int, Tensor], slope: dict[int, Tensor]) -> list[dict[int, Tensor]]:
        """Down the slope by several lengths: every element alike (the largest shift counts for data), and in proportion."""
        scaled = {s.id: slope[s.id] * s.unit for s in self.sources}
        length = float(sum(float(g.square().sum()) for g in scaled.values()) ** 0.5)
        if not (length > 0 and isfinite(length)):
            return []
        alike = {i: torch.sign(g) for i, g in scaled.items()}
        straight = {i: g / length for i, g in scaled.items()}
        ways = (alike, straight) if self.group == DATA else (straight,)
        return [
            {s.id: s.moved(point[s.id] - s.tensor - step * s.unit * way[s.id]) for s in self.sources}
            for way in ways
            for step in _LENGTHS[self.group]
        ]

    def _measure(self) -> Callable[[Tensor], Tensor] | None:
        """How far each element of the signed value is from the nearest end of the dangerous op; negative beyond it."""
        danger = self.run.ops[self.expression.danger]
        ends = limits(danger.name, danger.attributes, FORMATS["float32"])
        if not ends:
            return None
        before = self.sub.values.get(self.expression.signed)
        side = 1.0 if before is None else torch.where(before.double() < 0, -1.0, 1.0)
        touching = self.expression.signed != self.expression.operand

        def measure(signed: Tensor) -> Tensor:
            parts = []
            for end in ends:
                if touching or end.side == "at":
                    parts.append(side * signed)
                elif end.side == "below":
                    parts.append(signed - end.at)
                else:
                    parts.append(end.at - signed)
            return torch.stack(parts).amin(0)

        return measure

    def _vary(self, tried: list[State], format: str) -> Lanes:
        """All states, the first of which is the observed one, in parts that fit into memory; it leads every part."""
        self.afford(len(tried), None)
        at_once = max(1, _LARGEST // self.elements - 1)
        parts = []
        for start in range(1, len(tried), at_once):
            part = [tried[0], *tried[start : start + at_once]]
            stacked = {s.id: torch.stack([state.values[s.id] for state in part]) for s in self.sources}
            parts.append(self.sub.vary(stacked, DTYPES[format]))
        return Lanes(
            *([x for n, part in enumerate(parts) for x in getattr(part, name)[min(n, 1) :]] for name in Lanes.__slots__)
        )


def _breaks_here(operand: list[int], counts: list[int], lane: int) -> bool:
    """Not finite behind an operand that is; where the recorded operand holds masks, more of it than was recorded."""
    if operand[0] == 0:
        return operand[lane] == 0 and counts[lane] > 0
    return operand[lane] <= operand[0] and counts[lane] > counts[0]


def _link(lanes: Lanes, lane: int) -> dict[str, float | None]:
    values = {"low": lanes.low[lane], "high": lanes.high[lane], "gap": lanes.gap[lane]}
    return {name: value if isfinite(value) else None for name, value in values.items()}
