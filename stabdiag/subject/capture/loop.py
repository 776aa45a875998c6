"""A file's own training, read from its code and not run: does it train when it is executed, and what does it differentiate?"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from stabdiag.subject.overlay import source_bytes
from stabdiag.subject.usage import main_block

CONTRACT = ("build_model", "example_inputs", "loss")
_FRAMEWORKS = ("lightning", "pytorch_lightning", "transformers", "accelerate", "trl")
_FITS = ("fit", "train")


def tree(path: Path) -> ast.Module:
    """The syntax tree of a file; an empty one where it is no Python that can be read."""
    try:
        return ast.parse(source_bytes(path))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return ast.Module([], [])


def trains_when_run(module: ast.Module) -> bool:
    """Whether `python FILE` would train: what it executes reaches a call of backward(), or of a framework's fit() or train().

    A file that keeps the contract is a model to be scanned, whatever else it can do.
    """
    functions = {node.name: node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}
    if set(CONTRACT) & {node.name for node in module.body if isinstance(node, ast.FunctionDef)}:
        return False
    framework = any(name.split(".")[0] in _FRAMEWORKS for name in _imported(module))
    plain = [node for node in module.body if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom)]
    todo: list[ast.AST] = [*(node for node in plain if not _is_main(node)), *main_block(module)]
    seen: set[str] = set()
    while todo:
        node = todo.pop()
        for part in ast.walk(node):
            if not isinstance(part, ast.Call):
                continue
            name = part.func.attr if isinstance(part.func, ast.Attribute) else getattr(part.func, "id", "")
            method = isinstance(part.func, ast.Attribute)
            if method and (name == "backward" or (framework and name in _FITS)):
                return True
            handed_on = [argument.id for argument in part.args if isinstance(argument, ast.Name)]  # optimizer.step(closure)
            for known in (name, *handed_on):
                if known in functions and known not in seen:
                    seen.add(known)
                    todo.append(functions[known])
    return False


def own_loss(module: ast.Module) -> tuple[str, int] | None:
    """What the file's first backward() is called on, as the author wrote it, and its line; None where there is no such call."""
    for scope in _scopes(module):
        for call in sorted(_calls(scope, "backward"), key=lambda c: c.lineno):
            assert isinstance(call.func, ast.Attribute)
            on = call.func.value
            if isinstance(on, ast.Call) and call.args == [] and on.args:  # scaler.scale(loss).backward()
                on = on.args[0]
            elif call.args:  # accelerator.backward(loss)
                on = call.args[0]
            if not isinstance(on, ast.Name):
                return ast.unparse(on), on.lineno
            made = [
                node
                for node in ast.walk(scope)
                if isinstance(node, ast.Assign)
                and node.lineno < call.lineno
                and any(isinstance(target, ast.Name) and target.id == on.id for target in node.targets)
            ]
            if made:
                last = max(made, key=lambda node: node.lineno)
                return ast.unparse(last), last.lineno
            return ast.unparse(call), call.lineno
    return None


def _scopes(module: ast.Module) -> Iterator[ast.AST]:
    """Functions first, each by itself, then the module."""
    yield from (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef))
    yield module


def _calls(scope: ast.AST, method: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(scope)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method
    ]


def _imported(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _is_main(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))
