"""What depends on what in a recorded run, answered for every value in one sweep over the ops.

Names of modules, variables and files play no part; a softmax in one module and the logarithm of it in a loss function three
calls later are two ops and the value that flows between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from stabdiag.trace.derived import derived
from stabdiag.trace.ops import (
    AFFINE_NORMALISATIONS,
    FRESH,
    LAYERS,
    LINEAR,
    LOOKUPS,
    PRODUCTS,
)
from stabdiag.trace.run import Op, Run


@dataclass(frozen=True)
class Slice:
    """The ops that make a value from free values.

    Attributes:
        ops: indices in order of execution.
        sources: ids of the values that the data and trained weights can drive anywhere: outputs of layers, inputs.
        parameters: ids of the trained parameters that it is computed from without such a value in between.
    """

    ops: tuple[int, ...]
    sources: tuple[int, ...]
    parameters: tuple[int, ...] = ()


@dataclass
class Dependence:
    """Dependence in one run. Made once per run by `dependence(run)`."""

    run: Run
    _data: list[bool] = field(default_factory=list)
    _derived: list[bool] = field(default_factory=list)  # also through comparisons and indices
    _trained: list[bool] = field(default_factory=list)
    _named: list[bool] = field(default_factory=list)  # also ids of the input and what is computed from them
    _moving: set[str] = field(default_factory=set)  # names of the parameters that training changes

    def __post_init__(self) -> None:
        run = self.run
        self._data = [v.kind == "input" and _floating(v.dtype) for v in run.values]
        self._derived = list(self._data)
        self._moving = {p.name for p in run.parameters if p.requires_grad}
        self._trained = [v.kind == "parameter" for v in run.values]
        self._named = [v.kind == "input" for v in run.values]
        for op in run.ops:
            fresh = op.name in FRESH
            data = not fresh and (any(self._data[i] for i in op.inputs) or op.name in LAYERS or self._looked_up(op))
            named = not fresh and any(self._named[i] for i in op.inputs)
            derived = not fresh and (data or any(self._derived[i] for i in op.inputs))
            trained = not fresh and any(self._trained[i] for i in op.inputs)
            for value_id in op.outputs:
                floating = _floating(run.values[value_id].dtype)
                self._data[value_id] = data and floating
                self._derived[value_id] = derived
                self._trained[value_id] = trained and floating
                self._named[value_id] = named

    def data(self, value_id: int) -> bool:
        """Whether a value varies with the model's input (through floating-point values: not through a comparison)."""
        return self._data[value_id]

    def named(self, value_id: int) -> bool:
        """Whether a value is computed from the model's input, by way of ids and comparisons too."""
        return self._named[value_id]

    def varies(self, value_id: int) -> bool:
        """Whether a value changes with the model's input or with training."""
        return self._data[value_id] or self._trained[value_id]

    @cached_property
    def differentiated(self) -> set[int]:
        """Forward ops that autograd went back through; ops inside a custom backward's forward are not among them."""
        reached = {op.forward for op in self.run.ops if op.forward is not None}
        return {i for i in reached if self.run.ops[i].recording}

    def behind(self, value_id: int) -> int:
        """Follow views, copies and casts back to the value they show."""
        while (op := self.run.producer(value_id)) is not None and op.view and op.name != "copy" and op.inputs:
            value_id = op.inputs[0]
        return value_id

    def maker(self, value_id: int) -> Op | None:
        """The op that made what a value shows, None for leaves."""
        return self.run.producer(self.behind(value_id))

    def uses(self, value_id: int) -> Iterator[Op]:
        """Forward and loss ops that read a value, directly or through views."""
        for op in self.run.consumers(value_id):
            if op.phase in ("forward", "loss"):
                if op.view and op.name != "copy":
                    for shown in op.outputs:
                        yield from self.uses(shown)
                else:
                    yield op

    def downstream(self, op: Op, steps: int) -> set[int]:
        """The ops that read a result within so many steps."""
        reached: set[int] = set()
        front = [op]
        for _ in range(steps):
            front = [use for at in front for value in at.outputs for use in self.uses(value) if use.index not in reached]
            reached.update(use.index for use in front)
        return reached

    def free(self, op: Op) -> bool:
        """Whether trained weights can bring an op's result to any size and sign: a layer's output."""
        name = op.name
        if name in LAYERS or self._looked_up(op):
            return True
        if name in AFFINE_NORMALISATIONS:
            return any(self._trained[i] for i in op.inputs[1:])
        return name in PRODUCTS and any(self._trained[i] and not self._data[i] and self._unbounded(i) for i in op.inputs)

    def _looked_up(self, op: Op) -> bool:
        """An embedding by hand: rows of a trained table, chosen by ids of the input."""
        table = op.inputs[0] if op.name in LOOKUPS and len(op.inputs) > 1 else None
        return (
            table is not None and self._trained[table] and any(self._named[i] for i in op.inputs[1:]) and not self._named[table]
        )

    def driven(self, sources: Iterable[int]) -> bool:
        """Whether data drive one of these values through trained weights: not the input itself, not a row of a trained table
        nor what is normalised, which the weights alone move."""
        makers = [op for i in sources if (op := self.run.producer(i)) is not None]
        return any("embedding" not in op.name and "norm" not in op.name and not self._looked_up(op) for op in makers)

    def _unbounded(self, value_id: int) -> bool:
        """Weights made positive (softplus, exp) keep the sign of what they multiply, normalised ones its size."""
        op = self.maker(value_id)
        stats = self.run.values[self.behind(value_id)].stats
        if op is None or stats is None:
            return True
        normalised = op.name == "div" and len(op.inputs) == 2 and self._trained[op.inputs[1]]
        return stats.min < 0 and not normalised

    def slice(self, value_id: int) -> Slice:
        """The ops between free values and trained parameters and this one."""
        ops: set[int] = set()
        sources: set[int] = set()
        parameters: set[int] = set()
        seen: set[int] = set()
        stack = [value_id]
        while stack:
            current = stack.pop()
            if current in seen or not (self._derived[current] or self._trained[current]):
                continue
            seen.add(current)
            op = self.run.producer(current)
            if op is None:
                (parameters if self.run.values[current].name in self._moving else sources).add(current)
            elif self._derived[current] and self.free(op):
                sources.add(current)
            else:
                ops.add(op.index)
                stack.extend(op.inputs)
        driven = (i for i in sources if self._data[i])
        return Slice(tuple(sorted(ops)), tuple(sorted(driven)), tuple(sorted(parameters)))

    def between(self, start: Slice, end: Op) -> tuple[int, ...]:
        """The ops that lead from what a slice starts at to a later op without passing another layer, its own left out."""
        values = {*start.sources, *start.parameters}
        reached = []
        for op in self.run.ops[min((self.run.values[i].op or 0 for i in values), default=0) : end.index + 1]:
            if values.intersection(op.inputs) and not self.free(op):
                reached.append(op)
                values.update(op.outputs)
        needed, wanted = set(end.outputs), []
        for op in reversed(reached):
            if needed.intersection(op.outputs):
                needed.update(op.inputs)
                if op.index not in start.ops:
                    wanted.append(op.index)
        return tuple(reversed(wanted))

    def roots(self, value_id: int) -> dict[int, frozenset[str]]:
        """What a value is a selection, sum, mean or multiple of.

        Returns:
            Index of each op that is behind it through linear ops only -> names of the ops on the way ("product" for a
            multiplication of two values that both vary, one of them not an input; "mixture" for a matrix product of
            probabilities, which can only be 0 where they are).
        """
        found: dict[int, frozenset[str]] = {}
        stack: list[tuple[int, frozenset[str]]] = [(value_id, frozenset())]
        seen: set[int] = set()
        while stack:
            current, way = stack.pop()
            current = self.behind(current)
            op = self.run.producer(current)
            if current in seen or op is None or not self._data[current]:
                continue
            seen.add(current)
            name = op.name
            if name in PRODUCTS and not self.free(op) and self._averages(op):
                stack.extend((i, way | {"mixture"}) for i in op.inputs if self._data[i])
                continue
            if name not in LINEAR or self.free(op):
                found[op.index] = way
                continue
            varying = [i for i in op.inputs if self._data[i]]
            if name == "div" and len(op.inputs) == 2 and self._data[op.inputs[1]]:
                found[op.index] = way
                continue
            if name in ("sub", "rsub") and len(varying) == 2:
                found[op.index] = way
                continue
            way = way | {name}
            if name == "mul" and len([i for i in varying if self.run.producer(self.behind(i)) is not None]) == 2:
                way = way | {"product"}
            stack.extend((i, way) for i in varying)
        return found

    def _averages(self, op: Op) -> bool:
        """Whether a matrix product is of probabilities: no factor below 0 or above 1."""
        bounds = [self.run.values[self.behind(i)].stats for i in op.inputs]
        return all(s is not None and s.min >= 0 and s.max <= 1 for s in bounds)


@derived
def dependence(run: Run) -> Dependence:
    """The dependence in a run, computed once."""
    return Dependence(run)


def _floating(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))
