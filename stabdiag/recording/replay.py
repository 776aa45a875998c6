"""The same randomness in every precision: draws of the first run are kept and given back to the later ones.

Seeding alone does not do it: generators consume their stream differently by dtype and device, and one draw more or less
(autocast, emulation) shifts all that follow. Without this a dropout mask would pass for an error of the format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stabdiag.recording.operator import Operator
from stabdiag.recording.tracer import Execute


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

        def taken(name: str, shape: tuple[int, ...]) -> Tensor | None:
            key = (name, tuple(shape))
            index = position[key] = position.get(key, -1) + 1
            draws = self._draws.get(key, ())
            return draws[index] if index < len(draws) else None

        def run(func: Any, info: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            if not info.random:
                return execute(func, info, args, kwargs)
            in_place = info.mutates == (0,)
            if in_place and (draw := taken(info.name, args[0].shape)) is not None:
                return args[0].copy_(draw)  # drawing again would only cost time
            result = execute(func, info, args, kwargs)
            drawn = result[-1] if isinstance(result, tuple) else result
            if in_place or not isinstance(drawn, Tensor) or (draw := taken(info.name, drawn.shape)) is None:
                return result
            if isinstance(result, tuple) and info.name == "native_dropout":
                scale = 1.0 / (1.0 - args[1]) if args[1] < 1 else 0.0
                result[0].copy_(args[0] * draw.to(drawn.device) * scale)
            drawn.copy_(draw)
            return result

        return run


def _kept(drawn: Tensor) -> Tensor:
    """Half the memory for masks: draws of zeros and ones are kept as bool."""
    if drawn.is_floating_point() and bool(((drawn == 0) | (drawn == 1)).all()):
        return drawn.to(torch.bool)
    return drawn.detach().clone()
