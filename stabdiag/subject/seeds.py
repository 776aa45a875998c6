"""Random numbers: fixed before the author's code runs, shifted for another draw, and put back as they were."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with all global generators seeded; afterwards they are as before."""
    python, array = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        random.seed(seed)
        numpy.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(array)


@contextmanager
def shifted(offset: int, module: ModuleType) -> Iterator[None]:
    """Run a block in which every seed that the author's code sets itself is offset by `offset`.

    `from torch import manual_seed` binds the function in the author's module: that name is shifted as well. Seeds set in ways
    unknown here (a library's own generator in C) stay as they are, which makes the rebuilt model less different, never wrong.
    """

    def shift(original: Callable[..., Any]) -> Callable[..., Any]:
        def seed(value: Any = None, *rest: Any, **more: Any) -> Any:
            return original(value + offset if isinstance(value, int) else value, *rest, **more)

        return seed

    class Generator(torch.Generator):
        def manual_seed(self, seed: int) -> torch.Generator:
            return super().manual_seed(seed + offset)

    replaced = {
        torch.manual_seed: shift(torch.manual_seed),
        torch.cuda.manual_seed: shift(torch.cuda.manual_seed),
        torch.cuda.manual_seed_all: shift(torch.cuda.manual_seed_all),
        torch.Generator: Generator,
        random.seed: shift(random.seed),
        numpy.random.seed: shift(numpy.random.seed),
        numpy.random.default_rng: shift(numpy.random.default_rng),
    }
    by_identity: dict[int, Any] = {id(original): instead for original, instead in replaced.items()}
    homes: list[ModuleType] = [torch, torch.random, torch.cuda, torch.cuda.random, random, numpy.random, module]
    patched: list[tuple[ModuleType, str, Any]] = []
    for home in homes:
        for name, value in list(vars(home).items()):
            if (instead := by_identity.get(id(value))) is not None:
                patched.append((home, name, value))
                setattr(home, name, instead)
    try:
        yield
    finally:
        for home, name, value in patched:
            setattr(home, name, value)
