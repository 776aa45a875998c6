"""Statements about many modules, run on models of those shapes."""

from __future__ import annotations

import pytest
from torch import nn

from stabdiag.repair.editing.statements import each, replace_each


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"up": nn.Linear(4, 4), "act": nn.ReLU()}) for _ in range(4))
        self.layers = nn.Sequential(
            nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)
        )
        self.head = nn.Linear(4, 2)


def kinds(model: nn.Module) -> dict[str, str]:
    return {path: type(module).__name__ for path, module in model.named_modules() if not list(module.children())}


CHOICES = {
    "one": ["head"],
    "sequence": ["layers.0", "layers.2", "layers.4", "layers.6"],
    "part of a sequence": ["layers.0", "layers.2", "layers.4"],
    "no pattern": ["layers.0", "layers.6", "head"],
    "everything": ["layers.1", "layers.3", "layers.5", *(f"blocks.{i}.act" for i in range(4))],
}


@pytest.mark.parametrize("paths", CHOICES.values(), ids=CHOICES.keys())
def test_each_reaches_exactly_the_modules_named(paths: list[str]) -> None:
    model = Blocks()
    for statement in each(paths, kinds(model), lambda layer: f"{layer}.marked = True"):
        exec(statement, {"model": model, "nn": nn})
    assert {path for path, module in model.named_modules() if hasattr(module, "marked")} == set(paths)


@pytest.mark.parametrize("paths", CHOICES.values(), ids=CHOICES.keys())
def test_replace_each_replaces_exactly_the_modules_named(paths: list[str]) -> None:
    model = Blocks()
    before = dict(model.named_modules())
    for statement in replace_each(paths, kinds(model), lambda layer: f"nn.Sequential({layer}, nn.Identity())"):
        exec(statement, {"model": model, "nn": nn})
    after = dict(model.named_modules())
    assert {path for path in kinds(Blocks()) if after[path] is not before[path]} == set(paths)
    assert all(after[path][0] is before[path] for path in paths)


def test_many_modules_of_one_kind_take_one_loop() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(9)))
    assert each([str(i) for i in range(9)], kinds(model), lambda layer: f"f({layer})") == ["for layer in model:\n    f(layer)"]
