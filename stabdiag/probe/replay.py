"""The same randomness in every precision: draws of the first run are kept and given back to the later ones.

Seeding alone does not do it: generators consume their stream differently by dtype and device, and one draw more or less
(autocast, emulation) shifts all that follow. Without this a dropout mask would pass for an error of the format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stabdiag.probe.operator import Operator
from stabdiag.probe.tracer import Execute


class Replay:
    """Draws by op name and shape, in order. `recording` keeps them, `replaying` returns them while they fit."""

    def __init__(self) -> None:
        self._draws: dict[tuple[str, tuple[int, ...]], list[Tensor]] = {}

    def recording(self, execute: Execute) -> Execute:
        """Wrap an executor so that what random ops return is kept."""

        def run(func: Any, info: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            result = execute(func, info, args, kwargs)
            if info.random:
                drawn = result[-1] if isinstance(result, tuple) else result
                if isinstance(drawn, Tensor):
                    self._draws.setdefault((info.name, tuple(drawn.shape)), []).append(_kept(drawn))
            return result

        return run

    def replaying(self, execute: Execute) -> Execute:
        """Wrap an executor so that random ops return what they returned in the recorded run."""
        position: dict[tuple[str, tuple[int, ...]], int] = {}

        def run(func: Any, info: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            result = execute(func, info, args, kwargs)
            if not info.random:
                return result
            drawn = result[-1] if isinstance(result, tuple) else result
            if not isinstance(drawn, Tensor):
                return result
            key = (info.name, tuple(drawn.shape))
            index = position.get(key, 0)
            position[key] = index + 1
            draws = self._draws.get(key, ())
            if index < len(draws):
                if isinstance(result, tuple) and info.name == "native_dropout":
                    mask = draws[index].to(drawn.device)
                    scale = 1.0 / (1.0 - args[1]) if args[1] < 1 else 0.0
                    result[0].copy_(args[0] * mask * scale)
                drawn.copy_(draws[index])
            return result

        return run


def _kept(drawn: Tensor) -> Tensor:
    """Half the memory for masks: draws of zeros and ones are kept as bool."""
    if drawn.is_floating_point() and bool(((drawn == 0) | (drawn == 1)).all()):
        return drawn.to(torch.bool)
    return drawn.detach().clone()
