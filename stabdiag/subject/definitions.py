"""What models a module defines: instances, classes, factories, and which of them uses which."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import nn

from stabdiag.subject.attributes import uncompiled
from stabdiag.subject.frames import is_library
from stabdiag.subject.usage import names_in, tree_of


def instances_of(module: ModuleType) -> dict[str, nn.Module]:
    """Models with parameters at module level; compiled ones as they were before."""
    found = {key: uncompiled(value) for key, value in vars(module).items() if isinstance(value, nn.Module)}
    return {key: value for key, value in found.items() if any(True for _ in value.parameters())}


def classes_of(module: ModuleType, imported: bool = False) -> dict[str, type[nn.Module]]:
    """The module's own model classes that have a forward, or with `imported` those it takes from its neighbours."""
    own: dict[str, type[nn.Module]] = {}
    for key, value in vars(module).items():
        if not (inspect.isclass(value) and issubclass(value, nn.Module)) or inspect.isabstract(value):
            continue
        if inspect.getattr_static(value, "forward") is nn.Module.forward:  # a ScriptModule's own raises when it is read
            continue
        here = value.__module__ == module.__name__
        if here and not imported:
            alias = any(value is known for known in own.values())  # `Net = ResNet` is the same class twice
            own |= {} if alias else {key: value}
        elif imported and not here and not is_library(inspect.getfile(value)):
            own[key] = value
    return own


def functions_of(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """Functions defined in the module itself."""
    return {k: v for k, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__}


def factories_of(module: ModuleType, classes: dict[str, type[nn.Module]]) -> dict[str, Callable[..., Any]]:
    """Functions that return a model, told from their code: they are not called to find out, and none that trains is one."""
    functions, found = functions_of(module), dict[str, Callable[..., Any]]()
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
        home = getattr(called, "__module__", None) or ""
        return text.endswith("from_config") or (".models" in home and inspect.isfunction(called))

    assigned: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Assign) and makes_model(part.value):
            assigned |= {t.id for t in part.targets if isinstance(t, ast.Name)}
    if node.returns is not None and isinstance(node.returns, ast.Attribute) and ast.unparse(node.returns) == "nn.Module":
        return True
    return any(makes_model(part.value) for part in ast.walk(node) if isinstance(part, ast.Return))


def _trains(node: ast.FunctionDef) -> bool:
    return any(isinstance(part, ast.Attribute) and part.attr in ("backward", "zero_grad") for part in ast.walk(node))


def references(module: ModuleType, names: list[str]) -> dict[str, set[str]]:
    """Which of the named definitions each of them mentions."""
    nodes = {n.name: n for n in tree_of(module).body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
    return {name: names_in(nodes[name]) & set(names) if name in nodes else set() for name in names}


def reach(name: str, graph: dict[str, set[str]]) -> set[str]:
    """All definitions that one uses, directly or through others."""
    seen, todo = set[str](), [name]
    while todo:
        new = graph.get(todo.pop(), set()) - seen
        seen |= new
        todo += new
    return seen
