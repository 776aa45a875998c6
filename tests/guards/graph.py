"""Hand-made runs: a graph in a few words, no torch, milliseconds."""

from __future__ import annotations

from typing import Any

from stabdiag.trace import Location, Op, Parameter, Run, Stats, SubjectFacts, Trace, Value
from stabdiag.trace.experiments import Experiments


def stats(largest: float = 1.0, count: int = 64, nan: int = 0, posinf: int = 0, neginf: int = 0, **more: Any) -> Stats:
    """A distribution that reaches from -largest to largest, root mean square a third of it."""
    fields = {"min": -largest, "max": largest, "max_abs": largest, "sum_sq": count * (largest / 3) ** 2} | more
    return Stats(count=count, nan=nan, posinf=posinf, neginf=neginf, sampled=count, **fields)


class Graph:
    """Builds a run op by op. `leaf` and `op` give ids of values.

    Lines count up with the ops, so that each has a place of its own.
    """

    def __init__(self, precision: str = "float64", **fields: Any) -> None:
        self.run = Run(precision, **fields)

    def leaf(self, kind: str = "input", name: str = "x", largest: float | Stats | None = 1.0, dtype: str = "") -> int:
        """A leaf value."""
        return self._value(kind, name, None, largest, dtype or self.run.precision, (64,), None)

    def op(
        self,
        name: str,
        *inputs: int,
        largest: float | Stats | None = 1.0,
        phase: str = "forward",
        error: float | None = None,
        dtype: str = "",
        shape: tuple[int, ...] = (64,),
        line: int = 0,
        **fields: Any,
    ) -> int:
        """One op and its result."""
        index = len(self.run.ops)
        value = self._value("result", "", index, largest, dtype or self.run.precision, shape, error)
        at = Location("net.py", line or index + 1)
        op = Op(index, name, phase, fields.pop("module", "net"), "Net", fields.pop("call", 0), "", at, [*inputs], [value])
        for key, content in fields.items():
            setattr(op, key, content)
        self.run.ops.append(op)
        return value

    def parameter(self, name: str, gradient: float | Stats | None = 1.0) -> None:
        """A parameter with the gradient it gets."""
        found = gradient if isinstance(gradient, Stats) or gradient is None else stats(gradient)
        self.run.parameters.append(Parameter(name, "", "Linear", (8, 8), True, stats(), found))

    def ends(self, *outputs: int, loss: int | None = None) -> Run:
        """The finished run."""
        self.run.outputs, self.run.loss_value = [*outputs], loss if loss is not None else outputs[0]
        self.run.loss = 1.0
        return self.run

    def _value(
        self,
        kind: str,
        name: str,
        op: int | None,
        largest: float | Stats | None,
        dtype: str,
        shape: tuple[int, ...],
        error: float | None,
    ) -> int:
        found = largest if isinstance(largest, Stats) or largest is None else stats(largest)
        self.run.values.append(Value(kind, name, op, dtype, shape, stats=found, error=error))
        return len(self.run.values) - 1


def trace(*runs: Run, **experiments: Any) -> Trace:
    """A trace of these runs, with what experiments found by name."""
    return Trace(SubjectFacts("net.py", "Net", 100, "", ""), runs=[*runs], experiments=Experiments(**experiments))
