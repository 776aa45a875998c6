"""Statements about many modules at once, as an author would write them: a loop where the modules have something in common.

Paths are module paths ("blocks.3.fc"); `model` is the name of the built model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from textwrap import indent

from stabdiag.repair.editing.built import attribute

FEW = 2
"""Up to so many modules are named one by one."""


def each(paths: Iterable[str], modules: dict[str, str], lines: Callable[[str], str]) -> list[str]:
    """Statements that do `lines(expression)` to every module.

    Args:
        paths: the modules; each once.
        modules: class name of every module of the model, by path.
        lines: code about one module, given an expression for it ("module", "model.fc", "block.up").
    """
    paths = list(dict.fromkeys(paths))
    if len(paths) <= FEW:
        return [lines(attribute(path)) for path in paths]
    kind = _only_kind(paths, modules)
    pattern = _pattern(paths, modules)
    if pattern is not None:
        owner, suffix, _ = pattern
        name = "block" if suffix else "layer"
        return [f"for {name} in {owner}:\n{_inside(lines(attribute(suffix, name)))}"]
    if (sequence := _owner_of_all(paths, modules)) is not None:
        kind = modules[paths[0]]
        return [f"for layer in {attribute(sequence)}:\n    if isinstance(layer, nn.{kind}):\n{_inside(lines('layer'), 2)}"]
    if (row := _row(paths)) is not None:
        owner, start, stop, step = row
        return [f"for layer in {attribute(owner)}[{start}:{stop}:{step}]:\n{_inside(lines('layer'))}"]
    if kind:
        return [f"for module in model.modules():\n    if isinstance(module, nn.{kind}):\n{_inside(lines('module'), 2)}"]
    return [f"for layer in ({', '.join(attribute(p) for p in paths)}):\n{_inside(lines('layer'))}"]


def replace_each(paths: Iterable[str], modules: dict[str, str], made: Callable[[str], str]) -> list[str]:
    """Statements that put `made(expression)` in the place of every module."""
    paths = list(dict.fromkeys(paths))
    if len(paths) <= FEW:
        return [f"{attribute(path)} = {made(attribute(path))}" for path in paths]
    pattern = _pattern(paths, modules)
    if pattern is not None:
        owner, suffix, whole = pattern
        if not suffix and whole:
            return [f"for i, layer in enumerate({owner}):\n    {owner}[i] = {made('layer')}"]
        if suffix:
            place = attribute(suffix, "block")
            return [f"for block in {owner}:\n    {place} = {made(place)}"]
    kind = _only_kind(paths, modules)
    if (found := _owner_of_all(paths, modules)) is not None:
        owner, kind = attribute(found), modules[paths[0]]
        return [
            f"for i, layer in enumerate({owner}):\n    if isinstance(layer, nn.{kind}):\n        {owner}[i] = {made('layer')}"
        ]
    if (row := _row(paths)) is not None:
        owner, start, stop, step = row
        owner = attribute(owner)
        return [f"for i in range({start}, {stop}, {step}):\n    {owner}[i] = {made(f'{owner}[i]')}"]
    if kind:
        loop = "for parent in list(model.modules()):\n    for name, layer in list(parent.named_children()):\n"
        return [f"{loop}        if isinstance(layer, nn.{kind}):\n            setattr(parent, name, {made('layer')})"]
    return [f"{attribute(path)} = {made(attribute(path))}" for path in paths]


def _only_kind(paths: list[str], modules: dict[str, str]) -> str:
    """The class of which these are all the modules there are; "" when there is none."""
    kinds = {modules.get(path, "") for path in paths}
    kind = kinds.pop()
    return kind if not kinds and {path for path, of in modules.items() if of == kind} == set(paths) else ""


def _owner_of_all(paths: list[str], modules: dict[str, str]) -> str | None:
    """The sequence of which these are all the members of one class; None when there is none."""
    owners = {path.rpartition(".")[0] for path in paths}
    kinds = {modules.get(path, "") for path in paths}
    if len(owners) != 1 or len(kinds) != 1 or not all(path.rpartition(".")[2].isdigit() for path in paths):
        return None
    owner, kind = owners.pop(), kinds.pop()
    there = {path for path, of in modules.items() if path and path.rpartition(".")[0] == owner and of == kind}
    return owner if kind and there == set(paths) else None


def _row(paths: list[str]) -> tuple[str, int, int, int] | None:
    """(owner, start, stop, step) when the paths are members of one sequence at equal distances."""
    owners, last = {path.rpartition(".")[0] for path in paths}, [path.rpartition(".")[2] for path in paths]
    if len(owners) != 1 or not all(name.isdigit() for name in last):
        return None
    indices = sorted(int(name) for name in last)
    steps = {b - a for a, b in pairwise(indices)}
    return (owners.pop(), indices[0], indices[-1] + 1, steps.pop()) if len(steps) == 1 else None


def _pattern(paths: list[str], modules: dict[str, str]) -> tuple[str, str, bool] | None:
    """(code of the sequence, suffix, whether it is the whole sequence) when the paths are N.suffix for every N of a sequence or
    of a stretch of it."""
    parts = [path.split(".") for path in paths]
    if len({len(p) for p in parts}) != 1:
        return None
    differ = [i for i in range(len(parts[0])) if len({p[i] for p in parts}) > 1]
    if len(differ) != 1 or not all(p[differ[0]].isdigit() for p in parts):
        return None
    at = differ[0]
    owner, suffix = attribute(".".join(parts[0][:at])), ".".join(parts[0][at + 1 :])
    split = [path.split(".") for path in modules if path]
    there = {p[at] for p in split if p[:at] == parts[0][:at] and len(p) > at}
    if there == {p[at] for p in parts}:
        return owner, suffix, True
    indices = sorted(int(p[at]) for p in parts)
    if not suffix or indices != list(range(indices[0], indices[-1] + 1)):
        return None
    return f"{owner}[{indices[0]}:{indices[-1] + 1}]", suffix, False


def _inside(code: str, levels: int = 1) -> str:
    return indent(code, "    " * levels)
