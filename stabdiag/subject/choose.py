"""Which model of a file is meant, and why that one."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from torch import nn

from stabdiag.subject.attributes import uncompiled
from stabdiag.subject.build import NeedsArgumentsError, bind, build
from stabdiag.subject.conventions import guessed
from stabdiag.subject.definitions import classes_of, factories_of, functions_of, instances_of, reach, references
from stabdiag.subject.seeds import seeded
from stabdiag.subject.subject import SubjectError
from stabdiag.subject.usage import main_block, names_in, tree_of


@dataclass(frozen=True)
class Choice:
    """What was chosen: a model that exists (`instance`) or something to call (`target`), with arguments that are `guessed`."""

    name: str
    how: str
    instance: nn.Module | None = None
    target: Callable[..., Any] | None = None
    guessed: dict[str, Any] = field(default_factory=dict)


def choose(module: ModuleType, shown: str, name: str | None, given: dict[str, Any]) -> Choice:
    """Choose the model of a module: the one named, build_model(), the model at module level, else what nothing else uses.

    Raises:
        SubjectError: there is none, the name is unknown, several stand side by side, or the only one needs arguments.
    """
    if name is not None:
        return _completed(_named(module, shown, name), module, given)
    if inspect.isfunction(getattr(module, "build_model", None)):
        return Choice("build_model", "build_model() of the file", target=module.build_model)
    if (found := _instance(module, shown)) is not None:
        return found
    return _from_definitions(module, shown, given)


def _named(module: ModuleType, shown: str, name: str) -> Choice:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            known = sorted({*classes_of(module), *functions_of(module), *instances_of(module)})
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known[:8]) or 'no model at all'}."
            raise SubjectError(f"{shown} has no {name}; {hint}", "load")
        value = getattr(value, part)
    value = uncompiled(value)
    if isinstance(value, nn.Module):
        return Choice(name, f"{name}, named on the command line", instance=value)
    if callable(value):
        return Choice(name, f"{name}, named on the command line", target=value)
    raise SubjectError(f"{name} in {shown} is {type(value).__name__}; expected an nn.Module, its class or a factory.", "load")


def _instance(module: ModuleType, shown: str) -> Choice | None:
    found = instances_of(module)
    if not found:
        return None
    parts = {id(part) for value in found.values() for part in value.modules() if part is not value}
    whole = {key: value for key, value in found.items() if id(value) not in parts} or found
    distinct = {id(value): key for key, value in reversed(whole.items())}
    names = [key for key in whole if distinct[id(whole[key])] == key]
    chosen = names if len(names) == 1 else [key for key in names if key.lower() in ("model", "net", "network")]
    if len(chosen) != 1:
        chosen = [key for key in names if not _is_partner(type(whole[key]).__name__)]
    if len(chosen) != 1:
        raise _ambiguous(shown, names)
    others = f"; not {', '.join(n for n in names if n != chosen[0])}" if len(names) > 1 else ""
    return Choice(chosen[0], f"{chosen[0]}, a model at module level{others}", instance=whole[chosen[0]])


def _from_definitions(module: ModuleType, shown: str, given: dict[str, Any]) -> Choice:
    classes = classes_of(module)
    if not classes:
        classes = classes_of(module, imported=True)
    factories = factories_of(module, classes)
    graph = references(module, [*classes, *factories])
    objects: dict[str, Callable[..., Any]] = classes | factories
    if not objects:
        raise SubjectError(
            f"{shown} defines no model; expected an nn.Module class, a model at module level or a build_model().",
            "load",
        )
    first_problem: NeedsArgumentsError | None = None
    left = dict(graph)
    while left:
        used = set().union(*(refs - {key} for key, refs in left.items()))
        roots = [key for key in left if key not in used] or list(left)
        ready = []
        for key in roots:
            try:
                bind(objects[key], key, module, given)
                ready.append(key)
            except NeedsArgumentsError as error:
                first_problem = first_problem or error
            except SubjectError:
                if len(roots) == 1:
                    raise
        if ready:
            return _of_several(module, shown, ready, objects, graph, given)
        for key in (
            reversed(roots) if len(left) == len(graph) else ()
        ):  # a file ends with what it is about; the whole with guesses before a part without
            kind = "class" if inspect.isclass(objects[key]) else "factory"
            found = _completed(Choice(key, f"{kind} {key}", target=objects[key]), module, given)
            if found.guessed:
                return found
        left = {key: refs for key, refs in left.items() if key not in roots}
    assert first_problem is not None
    raise first_problem


def _completed(choice: Choice, module: ModuleType, given: dict[str, Any]) -> Choice:
    """The choice with guesses for arguments that nothing in the file tells, where there is a guess for all of them."""
    if choice.target is None:
        return choice
    try:
        bind(choice.target, choice.name, module, given)
    except NeedsArgumentsError:
        found = guessed(choice.target, module, given)
        if found:
            said = ", ".join(f"{key}={value!r}" for key, value in found.items())
            return replace(choice, how=f"{choice.how}, built with guessed {said} (--arg says otherwise)", guessed=found)
    return choice


def _of_several(
    module: ModuleType,
    shown: str,
    names: list[str],
    objects: dict[str, Callable[..., Any]],
    graph: dict[str, set[str]],
    given: dict[str, Any],
) -> Choice:
    def chosen(name: str, why: str) -> Choice:
        others = [n for n in names if n != name]
        kind = "class" if inspect.isclass(objects[name]) else "factory"
        also = f"; the file also has {', '.join(others[:6])}{', …' if len(others) > 6 else ''}" if others else ""
        return Choice(name, f"{kind} {name}, {why}{also}", target=objects[name])

    if len(names) == 1:
        return chosen(names[0], "the only one that nothing else in the file uses" if len(objects) > 1 else "the only model")
    plain = [n for n in names if _folded(n) == _folded(module.__name__.rpartition(".")[2].removeprefix("stabdiag_subject_"))]
    if len(plain) == 1:
        return chosen(plain[0], "it has the file's name")
    called = [n for n in names if any(n in names_in(statement) for statement in main_block(tree_of(module)))]
    if len(called) == 1:
        return chosen(called[0], "the one the file itself runs")
    factories = [n for n in names if not inspect.isclass(objects[n])]
    conventional = [n for n in factories if n in ("get_model", "create_model", "make_model", "build", "model", "get_network")]
    if len(conventional) == 1:
        return chosen(conventional[0], "its name says so")
    family = {frozenset(reach(n, graph) & {k for k in objects if inspect.isclass(objects[k])}) for n in names}
    common = frozenset.intersection(*family)
    if len(factories) == len(names) and common:
        return chosen(names[0], f"the first of {len(names)} factories of the same class")
    leading = [n for n in names if not _is_partner(n)]
    if len(leading) == 1:
        return chosen(leading[0], "the others are what it is trained against")
    with seeded(0):
        trained = [n for n in names if any(True for _ in _try_build(objects[n], n, module, given).parameters())]
    if len(trained) == 1:
        return chosen(trained[0], "the only one with parameters")
    raise _ambiguous(shown, trained or names)


def _try_build(target: Callable[..., Any], name: str, module: ModuleType, given: dict[str, Any]) -> nn.Module:
    try:
        return build(target, name, module, given)
    except SubjectError:
        return nn.Module()


def _ambiguous(shown: str, names: list[str]) -> SubjectError:
    return SubjectError(
        f"{shown} has several models ({', '.join(names[:8])}) and nothing to choose by; name one, for example "
        f"{shown}:{names[0]}.",
        "load",
    )


def _is_partner(name: str) -> bool:
    """Whether a model by its name only serves to train another."""
    return any(word in name.lower() for word in ("discriminator", "critic", "loss"))


def _folded(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
