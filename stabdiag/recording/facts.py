"""Facts that rules asked to have measured at ops (`stabdiag.rule.Measurement`), kept as tensors until the run is over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from stabdiag.rule import Measurement
from stabdiag.trace import Op, Run


class Facts:
    """Calls the measurements that are due at an op and turns their results into plain numbers at the end."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self._by_op: dict[tuple[str, str], list[Measurement]] = {}
        for measurement in measurements:
            for op in measurement.ops:
                self._by_op.setdefault((op, measurement.phase), []).append(measurement)
        self._pending: list[dict[str, Any]] = []

    def wanted(self, name: str, phase: str) -> list[Measurement]:
        """Measurements due at an op of this name; the loss counts as forward."""
        return self._by_op.get((name, "forward" if phase == "loss" else phase), [])

    def measure(
        self, wanted: list[Measurement], run: Run, op: Op, inputs: list[Tensor], output: Tensor, unit_dim: int | None
    ) -> None:
        """Call them and keep what they return in `op.facts`."""
        for measurement in wanted:
            if measurement.where is not None and not measurement.where(run, op):
                continue
            found = measurement.measure(inputs, output, unit_dim, op.attributes)
            if found is not None:
                op.facts[measurement.name] = kept = dict(found)
                self._pending.append(kept)

    def settle(self) -> None:
        """Turn tensors into numbers and lists; on CUDA this is the only synchronisation."""
        for fact in self._pending:
            for name, value in fact.items():
                if isinstance(value, Tensor):
                    fact[name] = value.tolist()
        self._pending.clear()


def add(total: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Add two facts of the same measurement. Lists add element by element; of different lengths the first is kept."""
    result = dict(total)
    for name, value in more.items():
        have = result.get(name)
        if have is None:
            result[name] = value
        elif isinstance(value, list):
            if len(value) == len(have):
                result[name] = [a + b for a, b in zip(have, value, strict=True)]
        else:
            result[name] = have + value
    return result
