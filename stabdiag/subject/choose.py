"""Which model of a file is meant, and why that one."""

from __future__ import annotations

import ast
import difflib
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import nn

from stabdiag.subject.build import NeedsArguments, bind, build
from stabdiag.subject.frames import is_library
from stabdiag.subject.seeds import seeded
from stabdiag.subject.subject import SubjectError
from stabdiag.subject.usage import main_block, names_in, tree_of


@dataclass(frozen=True)
class Choice:
    """What was chosen: a model that exists (`instance`) or something to call (`target`)."""

    name: str
    how: str
    instance: nn.Module | None = None
    target: Callable[..., Any] | None = None


def choose(module: ModuleType, shown: str, name: str | None, given: dict[str, Any]) -> Choice:
    """Choose the model of a module: the one named, build_model(), the model at module level, else what nothing else uses.

    Raises:
        SubjectError: there is none, the name is unknown, several stand side by side, or the only one needs arguments.
    """
    if name is not None:
        return _named(module, shown, name)
    if inspect.isfunction(getattr(module, "build_model", None)):
        return Choice("build_model", "build_model() of the file", target=module.build_model)
    if (found := _instance(module, shown)) is not None:
        return found
    return _from_definitions(module, shown, given)


def _named(module: ModuleType, shown: str, name: str) -> Choice:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            known = sorted({*_classes(module), *_functions(module), *_instances(module)})
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known[:8]) or 'no model at all'}."
            raise SubjectError(f"{shown} has no {name}; {hint}", "load")
        value = getattr(value, part)
    value = getattr(value, "_orig_mod", value)
    if isinstance(value, nn.Module):
        return Choice(name, f"{name}, named on the command line", instance=value)
    if callable(value):
        return Choice(name, f"{name}, named on the command line", target=value)
    raise SubjectError(f"{name} in {shown} is {type(value).__name__}; expected an nn.Module, its class or a factory.", "load")


def _instance(module: ModuleType, shown: str) -> Choice | None:
    found = _instances(module)
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
    classes = _classes(module)
    if not classes:
        classes = _classes(module, imported=True)
    factories = _factories(module, classes)
    graph = _references(module, [*classes, *factories])
    objects: dict[str, Callable[..., Any]] = classes | factories
    if not objects:
        raise SubjectError(
            f"{shown} defines no model; expected an nn.Module class, a model at module level or a build_model().",
            "load",
        )
    first_problem: NeedsArguments | None = None
    left = dict(graph)
    while left:
        used = set().union(*(refs - {key} for key, refs in left.items()))
        roots = [key for key in left if key not in used] or list(left)
        ready = []
        for key in roots:
            try:
                bind(objects[key], key, module, given)
                ready.append(key)
            except NeedsArguments as error:
                first_problem = first_problem or error
            except SubjectError:
                if len(roots) == 1:
                    raise
        if ready:
            return _of_several(module, shown, ready, objects, graph, given)
        left = {key: refs for key, refs in left.items() if key not in roots}
    assert first_problem is not None
    raise first_problem


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
    family = {frozenset(_reach(n, graph) & {k for k in objects if inspect.isclass(objects[k])}) for n in names}
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
        f"{shown} has several models ({', '.join(names[:8])}) and nothing to choose by; name one, for example {shown}:{names[0]}.",
        "load",
    )


def _instances(module: ModuleType) -> dict[str, nn.Module]:
    found = {key: getattr(value, "_orig_mod", value) for key, value in vars(module).items() if isinstance(value, nn.Module)}
    return {key: value for key, value in found.items() if any(True for _ in value.parameters())}


def _classes(module: ModuleType, imported: bool = False) -> dict[str, type[nn.Module]]:
    """The module's own model classes that have a forward, or with `imported` those it takes from its neighbours."""
    own: dict[str, type[nn.Module]] = {}
    for key, value in vars(module).items():
        if not (inspect.isclass(value) and issubclass(value, nn.Module)) or inspect.isabstract(value):
            continue
        if value.forward is nn.Module.forward:
            continue
        here = value.__module__ == module.__name__
        if here and not imported:
            own[value.__name__ if getattr(module, value.__name__, None) is value else key] = value
        elif imported and not here and not is_library(inspect.getfile(value)):
            own[key] = value
    return own


def _functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    return {k: v for k, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__}


def _factories(module: ModuleType, classes: dict[str, type[nn.Module]]) -> dict[str, Callable[..., Any]]:
    """Functions that return a model, told from their code: they are not called to find out, and none that trains is one."""
    functions, found = _functions(module), dict[str, Callable[..., Any]]()
    for key, value in vars(module).items():
        if isinstance(value, functools.partial) and inspect.isclass(value.func) and issubclass(value.func, nn.Module):
            found[key] = value
    definitions = {node.name: node for node in tree_of(module).body if isinstance(node, ast.FunctionDef)}
    changed = True
    while changed:
        changed = False
        for name, node in definitions.items():
            if name in found or name not in functions or name in ("loss", "example_inputs", "make_optimizer"):
                continue
            if not _trains(node) and _returns_model(node, module, {*classes, *found}):
                found[name], changed = functions[name], True
    order = list(definitions)
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def _returns_model(node: ast.FunctionDef, module: ModuleType, known: set[str]) -> bool:
    def makes_model(value: ast.expr | None) -> bool:
        if not isinstance(value, ast.Call):
            return isinstance(value, ast.Name) and value.id in assigned
        try:
            text = ast.unparse(value.func)
            called = eval(text, dict(vars(module))) if text.replace(".", "").replace("_", "").isalnum() else None
        except Exception:
            return False
        if inspect.isclass(called) and issubclass(called, nn.Module):
            return True
        if isinstance(value.func, ast.Name) and value.func.id in known:
            return True
        home = inspect.getmodule(called) if called is not None else None
        return text.endswith("from_config") or (home is not None and ".models" in home.__name__ and inspect.isfunction(called))

    assigned: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Assign) and makes_model(part.value):
            assigned |= {t.id for t in part.targets if isinstance(t, ast.Name)}
    if node.returns is not None and isinstance(node.returns, ast.Attribute) and ast.unparse(node.returns) == "nn.Module":
        return True
    return any(makes_model(part.value) for part in ast.walk(node) if isinstance(part, ast.Return))


def _trains(node: ast.FunctionDef) -> bool:
    return any(isinstance(part, ast.Attribute) and part.attr in ("backward", "zero_grad") for part in ast.walk(node))


def _references(module: ModuleType, names: list[str]) -> dict[str, set[str]]:
    """Which of the named definitions each of them mentions."""
    nodes = {n.name: n for n in tree_of(module).body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    return {name: names_in(nodes[name]) & set(names) if name in nodes else set() for name in names}


def _reach(name: str, graph: dict[str, set[str]]) -> set[str]:
    seen, todo = set[str](), [name]
    while todo:
        new = graph.get(todo.pop(), set()) - seen
        seen |= new
        todo += new
    return seen


def _is_partner(name: str) -> bool:
    """Whether a model by its name only serves to train another."""
    return any(word in name.lower() for word in ("discriminator", "critic", "loss"))


def _folded(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
