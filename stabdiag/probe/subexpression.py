"""A piece of the model taken out and run again on other operands: the ops of one recorded expression with their real arguments.

`Excerpts` runs forward and loss once more and keeps the arguments of the ops that expressions consist of. `Subexpression` runs
those ops again, many variations of the operands at a time, in any format, and says where the expression breaks first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stabdiag.probe.precision import emulated
from stabdiag.recording.eager import EagerMode
from stabdiag.recording.operator import Operator, operator
from stabdiag.recording.torch_private import loops_unannounced, tree_flatten, tree_leaves, tree_unflatten
from stabdiag.recording.tracer import Execute
from stabdiag.trace import Run
from stabdiag.trace.ops import base_name


class DivergedError(Exception):
    """The model did not run the same ops again: nothing can be said about what was recorded."""


@dataclass(frozen=True)
class Step:
    """One op to run again: `leaves` are its arguments flattened, `slots` where tensors go and which values they hold."""

    func: Any
    info: Operator
    leaves: list[Any]
    spec: Any
    slots: dict[int, int]
    outputs: list[int]

    def run(self, values: dict[int, Tensor]) -> None:
        """Compute from `values` and put the results there."""
        leaves = list(self.leaves)
        for position, value_id in self.slots.items():
            leaves[position] = values[value_id]
        args, kwargs = tree_unflatten(leaves, self.spec)
        if self.info.mutates:
            mutates = self.info.mutates
            args = [a.clone() if i in mutates and isinstance(a, Tensor) else a for i, a in enumerate(args)]
        result = emulated(self.func, self.info, args, kwargs)
        made = [result] if isinstance(result, Tensor) else [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        values.update(zip(self.outputs, made, strict=False))


class Excerpts(EagerMode):
    """Keeps the arguments of wanted ops while the model runs again. Raises DivergedError when the ops are not those recorded.

    Attributes:
        steps: by op index; values: by value id, clones.
    """

    def __init__(self, run: Run, wanted: Iterable[int], execute: Execute) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: dict[int, Step] = {}
        self.values: dict[int, Tensor] = {}
        self._run, self._wanted, self._execute, self._index = run, set(wanted), execute, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        info = operator(func)
        if not info.traced:
            return func(*args, **kwargs)
        index, self._index = self._index, self._index + 1
        if index >= len(self._run.ops) or self._run.ops[index].name != base_name(info.name):
            raise DivergedError
        if index in self._wanted:
            self._keep(index, func, info, args, kwargs)
        return self._execute(func, info, args, kwargs)

    def _keep(self, index: int, func: Any, info: Operator, args: Any, kwargs: Any) -> None:
        op = self._run.ops[index]
        leaves, spec = tree_flatten((args, kwargs))
        positions = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        if len(positions) != len(op.inputs):
            raise DivergedError
        for position, value_id in zip(positions, op.inputs, strict=True):
            if value_id not in self.values:
                self.values[value_id] = leaves[position].detach().clone()
            leaves[position] = None
        self.steps[index] = Step(func, info, leaves, spec, dict(zip(positions, op.inputs, strict=True)), op.outputs)


@dataclass(frozen=True, slots=True)
class Lanes:
    """What several variations of the operands led to, one entry per variation.

    Attributes:
        operand, value, gradient, inner: how many elements are not finite: of the dangerous op's operand, of the result, of the
            operand's gradient (0 where it is finite again at the sources), of the dangerous op's own result.
        crossed: elements of the signed value whose sign is not that of the first variation.
        low, high: extremes of the link; gap: its largest spread along a dimension, NaN without one.
    """

    operand: list[int]
    value: list[int]
    gradient: list[int]
    inner: list[int]
    crossed: list[int]
    low: list[float]
    high: list[float]
    gap: list[float]


@dataclass
class Subexpression:
    """The ops of one expression.

    Attributes:
        before: steps from the sources to the operand; after: from the dangerous op to the end.
        sources: ids of the values that are varied.
        operand, link, signed, danger, end: ids of values, see `stabdiag.evidence.expressions.forms`;
            danger: the dangerous op's result.
        values: what was recorded, by value id.
    """

    before: list[Step]
    after: list[Step]
    sources: list[int]
    operand: int
    link: int
    signed: int
    danger: int
    end: int
    gap_dim: int | None
    differentiate: bool
    values: dict[int, Tensor] = field(repr=False, default_factory=dict)

    def vary(self, lanes: dict[int, Tensor], dtype: torch.dtype) -> Lanes:
        """Run with the sources replaced; `lanes` holds, by value id, one variation along the first dimension each."""
        sources = [lanes[i].to(dtype) for i in self.sources]
        return self._run(sources, self._fixed(dtype))

    def distances(self, lanes: dict[int, Tensor], distance: Callable[[Tensor], Tensor]) -> Tensor:
        """The smallest distance of the signed value to where the dangerous op ends, per lane, in float64."""
        fixed = self._fixed(torch.float64)
        with torch.no_grad():
            (signed,) = _lanewise(self._upstream, [lanes[i].double() for i in self.sources], fixed, [self.signed])
        return torch.nan_to_num(distance(signed).reshape(len(signed), -1), nan=torch.inf).amin(1)

    def slope(self, point: dict[int, Tensor], distance: Callable[[Tensor], Tensor]) -> dict[int, Tensor]:
        """The gradient of the smallest distance with respect to the sources at one point, in float64; 0 where there is none."""
        leaves = [point[i].detach().double().clone().requires_grad_() for i in self.sources]
        with torch.enable_grad():
            (signed,) = self._upstream(leaves, self._fixed(torch.float64), [self.signed])
            apart = torch.nan_to_num(distance(signed), nan=torch.inf).flatten()
            nearest = apart[apart.argmin()]  # of equal ones a single one
            if not nearest.requires_grad:
                return {i: torch.zeros_like(leaf) for i, leaf in zip(self.sources, leaves, strict=True)}
            found = torch.autograd.grad(nearest, leaves, allow_unused=True)
        return {
            i: torch.zeros_like(leaf) if g is None else torch.nan_to_num(g, 0.0, 0.0, 0.0)
            for i, leaf, g in zip(self.sources, leaves, found, strict=True)
        }

    def _fixed(self, dtype: torch.dtype) -> dict[int, Tensor]:
        read = {i for step in (*self.before, *self.after) for i in step.slots.values()}
        return {i: _cast(self.values[i], dtype) for i in {*read, self.operand, self.link, self.signed} if i in self.values}

    def _run(self, lanes: list[Tensor], fixed: dict[int, Tensor]) -> Lanes:
        needed = [i for step in self.after for i in step.slots.values()]
        varied = {*self.sources, *(o for step in self.before for o in step.outputs)}
        handed = list(dict.fromkeys([self.operand, self.link, self.signed, *(i for i in needed if i in varied)]))
        lanes = [lane.requires_grad_(self.differentiate) for lane in lanes]
        with torch.set_grad_enabled(self.differentiate):
            upstream = _lanewise(self._upstream, lanes, fixed, handed)
        given = dict(zip(handed, upstream, strict=True))
        across = {i: given[i] if i in given else fixed[i].expand(len(lanes[0]), *fixed[i].shape) for i in self._numerator()}
        leaves = {i: tensor.detach().requires_grad_(self.differentiate) for i, tensor in {**given, **across}.items()}
        with torch.set_grad_enabled(self.differentiate):
            result, inner = _lanewise(self._downstream, list(leaves.values()), fixed, list(leaves))
        wanted = {i: leaves[i] for i in (self.operand, *across) if leaves[i].requires_grad}
        gradients: dict[int, Tensor | None] = {}
        if wanted and result.requires_grad:
            found = torch.autograd.grad(result, list(wanted.values()), torch.ones_like(result), allow_unused=True)
            gradients = dict(zip(wanted, found, strict=True))
        lost = _lost(gradients.get(self.operand), given[self.operand], lanes)
        for i in across:
            lost = lost + _lost(gradients.get(i), leaves[i], [leaves[i]])
        low, high, gap = extremes(given[self.link].detach(), self.gap_dim)
        counts = (_broken(given[self.operand].detach()), _broken(result.detach()), lost, _broken(inner.detach()))
        return Lanes(*(part.tolist() for part in (*counts, _crossed(given[self.signed].detach()), low, high, gap)))

    def _numerator(self) -> list[int]:
        """What the dangerous op divides: its gradient is lost with the quotient's."""
        steps = [step for step in self.after if self.danger in step.outputs and step.info.name.startswith("div")]
        beside = [i for step in steps for i in step.slots.values() if i != self.operand]
        return [i for i in beside if i not in self.values or self.values[i].is_floating_point()]

    def _upstream(self, sources: Sequence[Tensor], fixed: dict[int, Tensor], handed: list[int]) -> tuple[Tensor, ...]:
        values = {**fixed, **dict(zip(self.sources, sources, strict=True))}
        for step in self.before:
            step.run(values)
        return tuple(values[i] for i in handed)

    def _downstream(self, given: Sequence[Tensor], fixed: dict[int, Tensor], handed: list[int]) -> tuple[Tensor, ...]:
        values = {**fixed, **dict(zip(handed, given, strict=True))}
        for step in self.after:
            step.run(values)
        return values[self.end], values[self.danger]


def _lost(gradient: Tensor | None, operand: Tensor, sources: list[Tensor]) -> Tensor:
    """How many elements of a gradient are not finite, in lanes where the sources lose it too: relu puts a 0 in its place."""
    if gradient is None:
        return torch.zeros(len(operand), dtype=torch.int64, device=operand.device)
    count = _broken(gradient)
    if operand.requires_grad and not any(operand is source for source in sources) and bool(count.any()):
        behind = torch.autograd.grad(operand, sources, gradient, allow_unused=True)
        counts = [_broken(g) for g in behind if g is not None]
        count = count * (torch.stack(counts).sum(0) > 0) if counts else count
    return count


def extremes(link: Tensor, gap_dim: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Smallest and largest finite value of each lane, and its largest spread along a dimension (NaN without one)."""
    link = link.double()
    finite = torch.isfinite(link)
    below, above = torch.where(finite, link, torch.inf), torch.where(finite, link, -torch.inf)
    low, high = below.reshape(len(link), -1).amin(1), above.reshape(len(link), -1).amax(1)
    if gap_dim is None or link.dim() < 2:
        return low, high, torch.full_like(low, torch.nan)
    dim = gap_dim + 1 if gap_dim >= 0 else gap_dim
    return low, high, (above.amax(dim) - below.amin(dim)).reshape(len(link), -1).amax(1)


def _broken(tensor: Tensor) -> Tensor:
    return (~torch.isfinite(tensor)).reshape(len(tensor), -1).sum(1)


def _crossed(signed: Tensor) -> Tensor:
    """How many elements have another sign than in the first lane."""
    before = signed[:1].double()
    return ((signed.double() * before < 0) & torch.isfinite(before)).reshape(len(signed), -1).sum(1)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.dtype == torch.float32 else tensor


def _lanewise(function: Any, lanes: list[Tensor], fixed: dict[int, Tensor], handed: list[int]) -> tuple[Tensor, ...]:
    """All lanes at once where every op can be batched, one after the other where one cannot."""
    loops_unannounced()
    try:
        batched: tuple[Tensor, ...] = torch.vmap(lambda *given: function(given, fixed, handed))(*lanes)
        return batched
    except (RuntimeError, NotImplementedError, ValueError):
        one_by_one = [function([lane[k] for lane in lanes], fixed, handed) for k in range(len(lanes[0]))]
        return tuple(torch.stack(parts) for parts in zip(*one_by_one, strict=True))
