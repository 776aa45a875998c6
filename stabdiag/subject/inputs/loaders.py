"""Batches of a file's own: loaders and data sets at module level, or made by a function without arguments."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate

from stabdiag.subject.seeds import seeded
from stabdiag.subject.usage import names_in, tree_of

SAMPLES = 32
"""Samples of a batch that is taken from a data set without a loader."""


@dataclass(frozen=True)
class Batches:
    """Batches as a training step gets them: `batch(k)` for k below `count`; why these, and whether the author declared them."""

    batch: Callable[[int], Any]
    count: int
    why: str
    declared: bool = True


def loaders_of(module: ModuleType) -> Iterator[Batches]:
    """The loaders and data sets of a file, those with `train` in their name first. Functions are called to find out."""
    own = [(name, value) for name, value in vars(module).items() if not name.startswith("__")]
    own.sort(key=lambda item: "train" not in item[0].lower())
    for name, value in own:
        if isinstance(value, DataLoader | Dataset) and (found := batches_of(lambda v=value: v, name)) is not None:  # type: ignore[misc]
            yield found
    for name in _makers(module):
        if (found := batches_of(vars(module)[name], f"{name}()")) is not None:
            yield found


def batches_of(make: Callable[[], Any], name: str) -> Batches | None:
    """The first two batches of what `make` returns; None where it returns nothing that has batches, or raises."""
    try:
        with seeded(0):
            made = make()
            made = next(iter(made.values())) if isinstance(made, dict) else made[0] if isinstance(made, list | tuple) else made
            if isinstance(made, Dataset) and not hasattr(type(made), "__iter__"):
                first = default_collate([made[i] for i in range(min(SAMPLES, len(made)))])  # type: ignore[arg-type]
                return Batches(lambda k: first, 1, f"of the file's own {name}")
            taken = [batch for batch, _ in zip(iter(made), range(2), strict=False)]
    except Exception:
        return None
    return Batches(lambda k: taken[k], len(taken), f"of the file's own {name}") if taken else None


def _makers(module: ModuleType) -> Iterator[str]:
    """Functions without arguments whose code makes a loader or returns a data set of the file."""
    kinds = {n for n, v in vars(module).items() if inspect.isclass(v) and issubclass(v, DataLoader | Dataset)}
    for node in tree_of(module).body:
        if not isinstance(node, ast.FunctionDef) or not inspect.isfunction(vars(module).get(node.name)):
            continue
        required = [p for p in inspect.signature(vars(module)[node.name]).parameters.values() if p.default is p.empty]
        returned = [part.value for part in ast.walk(node) if isinstance(part, ast.Return) and part.value is not None]
        made = {t.id for part in ast.walk(node) if isinstance(part, ast.Assign) and names_in(part.value) & kinds
                for t in part.targets if isinstance(t, ast.Name)}  # fmt: skip
        if not required and any(names_in(value) & (kinds | made) for value in returned):
            yield node.name
