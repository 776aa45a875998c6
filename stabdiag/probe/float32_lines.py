"""Keep single source lines of a model in float32 while the rest runs in 16 bits: what an author does with `.float()`.

Works where the author's code calls torch, above autograd, so that gradients flow as they would in the edited model. What such a
line makes stays float32 for other lines of the set and is rounded to the format where any other line reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from stabdiag.probe.precision import HALF
from stabdiag.recording import source

Line = tuple[str, int]


class Float32Lines(TorchFunctionMode):
    """A context in which some lines compute in float32.

    Args:
        lines: (path, line) as in `Location`.
        narrow: the 16-bit dtype that other lines get.
        originals: id of a buffer -> its value before it was rounded, for lines of the set.
    """

    def __init__(self, lines: set[Line], narrow: torch.dtype, originals: Mapping[int, Tensor]) -> None:
        super().__init__()
        self.lines, self.narrow, self.originals = lines, narrow, originals

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__", "backward", "register_hook", "requires_grad_", "detach_"):
            return func(*args, **kwargs)
        at = source.here()
        if at is None or (at.path, at.line) not in self.lines:
            if any(_kept(t) for t in _tensors((args, kwargs))):
                args, kwargs = _map(self._rounded, (args, kwargs))
            return func(*args, **kwargs)
        args, kwargs = _map(self._wide, (args, kwargs))
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            result = func(*args, **kwargs)
        return _map(_keep, result)

    def _wide(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.dtype not in HALF:
            return leaf
        return self.originals[id(leaf)] if id(leaf) in self.originals else leaf.float()

    def _rounded(self, leaf: Any) -> Any:
        return leaf.to(self.narrow) if _kept(leaf) else leaf


def _map(change: Callable[[Any], Any], tree: Any) -> Any:
    """Change the leaves of nested arguments. No frame of torch comes between, so that casts count as the author's line."""
    if isinstance(tree, dict):
        return {key: _map(change, item) for key, item in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)([_map(change, item) for item in tree])
    return change(tree)


def _tensors(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _map(lambda leaf: found.append(leaf) if isinstance(leaf, Tensor) else None, tree)
    return found


def _keep(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and leaf.dtype == torch.float32:
        leaf._stays_float32 = True  # type: ignore[attr-defined]
    return leaf


def _kept(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.dtype == torch.float32 and getattr(leaf, "_stays_float32", False)
