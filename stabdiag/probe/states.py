"""States that an expression's sources could be in, and how far away they are: what a search for its end tries.

A source is what data or training drive: the output of a layer, an input, a trained parameter. How far a state is counts in what
is plausible for its kind (guard 11 of the catalogue):

- data: the largest shift of an element in standard deviations over the samples, about each unit's own mean;
- parameters: the length of the shift, all elements together. 1,000 steps of Adam at its default rate 1e-3 move a single weight
  by at most 1; what many weights would have to do together counts as their joint length, because their steps are independent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stabdiag.trace import Run

DATA, PARAMETERS = "data", "parameters"
FACTORS = [10 ** (e / 3) for e in range(10)]  # 1 to 1000
_MOVES = [0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5]  # of every weight, in units of its own
_OFF_ZERO = 1.0037  # a shift by exactly the largest magnitude would put that element on 0 by construction


@dataclass(frozen=True)
class Source:
    """One value that is varied.

    Attributes:
        id: its value id; tensor: as recorded, in float64.
        unit: what one step of distance is; positive: it stays at or above 0.
        fixed: masks, counts, ids: not scaled or shifted. A square one relates things to each other, of which one may be alone.
    """

    id: int
    tensor: Tensor
    unit: float
    positive: bool = False
    fixed: bool = False

    @property
    def related(self) -> bool:
        """Whether it relates rows to each other: which of them are neighbours."""
        shape = self.tensor.shape
        return self.fixed and len(shape) >= 2 and shape[-1] == shape[-2] > 2

    @property
    def finite(self) -> Tensor:
        """What is not finite stays as it is: masks are part of the expression."""
        return torch.isfinite(self.tensor)

    @property
    def largest(self) -> float:
        """The largest finite magnitude, 0 without one."""
        found = self.tensor[self.finite].abs()
        return float(found.max()) if found.numel() else 0.0

    def moved(self, change: Tensor) -> Tensor:
        """The source after a change of its finite elements."""
        after = self.tensor if self.fixed else torch.where(self.finite, self.tensor + change, self.tensor)
        return after.clamp(min=0) if self.positive else after


@dataclass(frozen=True)
class State:
    """One variation of all sources of an expression.

    Attributes:
        how: what was done: "observed", "scale", "negate", "raise", "lower", "descent", "zero", "constant", "aligned",
            "duplicate", "empty"; factor: by how much, for uniform variations.
        values: the sources then, by value id.
    """

    how: str
    factor: float
    values: dict[int, Tensor]


def data_source(value_id: int, tensor: Tensor, *, positive: bool, fixed: bool) -> Source:
    """A layer's output or an input: its unit is its spread over samples, or its size where it has none."""
    tensor = tensor.detach().double()
    if fixed:
        return Source(value_id, tensor, 1.0, positive, fixed)
    finite = torch.isfinite(tensor)
    filled = torch.where(finite, tensor, 0.0)
    over_samples = filled - filled.mean(0, keepdim=True) if tensor.dim() > 0 and len(tensor) > 1 else filled
    about_the_mean = filled - filled.mean() if tensor.numel() > 1 else filled
    for deviation in (over_samples, about_the_mean, filled):
        unit = float(deviation[finite].square().mean().sqrt()) if bool(finite.any()) else 0.0
        if unit > 1e-6 * float(filled.abs().max()):
            return Source(value_id, tensor, unit, positive)
    return Source(value_id, tensor, 1.0, positive)


def parameter_source(value_id: int, tensor: Tensor) -> Source:
    """A trained parameter."""
    return Source(value_id, tensor.detach().double(), 1.0)


def distance(group: str, sources: list[Source], state: State) -> float:
    """How far a state is from what was observed, see the module."""
    changes = [(state.values[s.id] - s.tensor)[s.finite] / s.unit for s in sources]
    if group == PARAMETERS:
        return float(sum(float(c.square().sum()) for c in changes) ** 0.5)
    return max((float(c.abs().max()) for c in changes if c.numel()), default=0.0)


def largest(state: State) -> float:
    """The largest finite magnitude of a state."""
    found = [v[torch.isfinite(v)].abs() for v in state.values.values()]
    return max((float(f.max()) for f in found if f.numel()), default=0.0)


def observed(sources: list[Source]) -> State:
    """The sources as recorded."""
    return State("observed", 1.0, {s.id: s.tensor for s in sources})


def uniform(group: str, sources: list[Source], directions: list[str], factors: Sequence[float] = FACTORS) -> list[State]:
    """Every source scaled by k, or shifted by k times its largest magnitude; a parameter shifted by what training moves it."""
    if group == PARAMETERS:
        signs = {"raise": 1.0, "lower": -1.0}
        return [
            State(d, k, {s.id: s.moved(torch.full_like(s.tensor, signs[d] * k)) for s in sources})
            for d in directions
            if d in signs
            for k in _MOVES
        ]
    return [
        State(d, k, {s.id: _varied(s, d, k) for s in sources}) for d in directions for k in factors if (d, k) != ("scale", 1.0)
    ]


def structured(sources: list[Source]) -> list[State]:
    """Data of a special shape: all 0, constant, two equal samples, parallel sources, a node without neighbours."""
    states = [
        State("zero", 0.0, {s.id: s.moved(-s.tensor) for s in sources}),
        State("constant", 1.0, {s.id: s.moved((s.largest or 1.0) - s.tensor) for s in sources}),
    ]
    if all(s.tensor.dim() > 1 and len(s.tensor) > 1 for s in sources) and not all(s.fixed for s in sources):
        states.append(State("duplicate", 1.0, {s.id: _with_equal_samples(s) for s in sources}))
    if any(s.related for s in sources):
        states.append(State("empty", 1.0, {s.id: _without_neighbours(s) if s.related else s.tensor for s in sources}))
    first, *others = [s for s in sources if not s.fixed] or sources
    as_found = {s.id: s.tensor for s in sources}
    if others and all(s.tensor.shape == first.tensor.shape for s in others):
        states += [State("aligned", k, {**as_found, **{s.id: k * first.tensor for s in others}}) for k in (1.0, -1.0)]
    return states


def _without_neighbours(source: Source) -> Tensor:
    """The first row and column emptied; where every row relates to itself, that stays: loops are there by construction."""
    alone = source.tensor.clone()
    itself = alone[..., 0, 0].clone()
    loops = bool((alone.diagonal(dim1=-2, dim2=-1) != 0).all())
    alone[..., 0, :] = 0.0
    alone[..., :, 0] = 0.0
    if loops:
        alone[..., 0, 0] = itself
    return alone


def _with_equal_samples(source: Source) -> Tensor:
    equal = source.tensor.clone()
    if not source.fixed:
        equal[1] = equal[0]
    return equal


def _varied(source: Source, how: str, factor: float) -> Tensor:
    """What is 0 as built is varied around 0, within 1 times k: a layer that starts at 0 does not stay there."""
    tensor, size = source.tensor, source.largest
    if size == 0:
        places = torch.arange(tensor.numel(), dtype=torch.float64, device=tensor.device).view(tensor.shape)
        tensor, size = torch.cos(places), 1.0
    after = {
        "scale": tensor * factor,
        "negate": tensor * -factor,
        "raise": tensor + _OFF_ZERO * factor * size,
        "lower": tensor - _OFF_ZERO * factor * size,
    }[how]
    return source.moved(after - source.tensor)


def recorded(run: Run, group: str, sources: list[Source], state: State, most: int = 4096) -> list[dict[str, Any]]:
    """A state as plain numbers, for a proof that runs it again.

    Returns:
        One entry per source: "kind" ("input", "parameter" or "result"), "name" of inputs and parameters, "op" of results
        ({"name", "module", "layer", "phase", "occurrence": how many ops of that name ran in that module before}), "how" and
        "factor" as in `State`, "shape", and "values", flat in order; None where there are more than `most` elements: then only
        how and factor say what to do.
    """
    return [
        {
            **_place(run, s.id),
            "how": state.how,
            "factor": state.factor,
            "shape": list(s.tensor.shape),
            "values": state.values[s.id].flatten().tolist() if s.tensor.numel() <= most else None,
        }
        for s in sources
    ]


def _place(run: Run, value_id: int) -> dict[str, Any]:
    value = run.values[value_id]
    op = run.producer(value_id)
    if op is None:
        return {"kind": value.kind, "name": value.name}
    before = sum(o.name == op.name and o.module == op.module for o in _earlier(run, op.index))
    place = {"name": op.name, "module": op.module, "layer": op.layer, "phase": op.phase, "occurrence": before}
    return {"kind": "result", "name": "", "op": place}


def _earlier(run: Run, index: int) -> Iterator[Any]:
    return (op for op in run.ops[:index])
