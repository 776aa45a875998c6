"""Nested arguments and results: their tensors in order, and copies with other leaves.

Unlike pytree this also looks into dataclasses and plain objects (a batch of a graph library, an output of a model), which are
copied shallowly and only where they hold a tensor.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_OPAQUE = (str, bytes, int, float, bool, type(None), type, FunctionType, ModuleType, nn.Module, torch.optim.Optimizer,
           torch.device, torch.dtype, torch.Generator)  # fmt: skip


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Every tensor, in an order that depends on the structure alone."""
    if isinstance(tree, Tensor):
        yield tree
        return
    for _, item in _items(tree):
        yield from tensors_in(item)


def mapped(tree: Any, leaf: Callable[[Any], Any], kind: type | tuple[type, ...] = Tensor) -> Any:
    """A copy with every leaf of `kind` replaced; what holds none is the same object as before."""
    if isinstance(tree, kind):
        return leaf(tree)
    items = _items(tree)
    if not items:
        return tree
    new = [(key, mapped(item, leaf, kind)) for key, item in items]
    if all(a is b for (_, a), (_, b) in zip(items, new, strict=True)):
        return tree
    return _rebuilt(tree, new)


def _items(tree: Any) -> list[tuple[Any, Any]]:
    if isinstance(tree, _OPAQUE):
        return []
    if isinstance(tree, list | tuple):
        return list(enumerate(tree))
    if isinstance(tree, slice):
        return [("start", tree.start), ("stop", tree.stop), ("step", tree.step)]
    if isinstance(tree, Mapping):
        return list(tree.items())
    own = getattr(tree, "__dict__", None)
    return list(own.items()) if isinstance(own, dict) and not callable(tree) else []


def _rebuilt(tree: Any, items: list[tuple[Any, Any]]) -> Any:
    values = [value for _, value in items]
    if isinstance(tree, slice):
        return slice(*values)
    if isinstance(tree, tuple):
        return type(tree)(*values) if hasattr(tree, "_make") else type(tree)(values)
    if isinstance(tree, list):
        return values if type(tree) is list else type(tree)(values)
    new = copy.copy(tree)
    if isinstance(tree, Mapping):
        for key, value in items:
            new[key] = value
    else:
        vars(new).update(items)
    return new
