"""Statements that run once the model is built, written where its author builds it.

The place is the end of the constructor of the scanned class, the line before the return of the factory, or the line behind the
module-level assignment: whichever made the subject. Where none of them is in the file, the function form is left to the author.
"""

from __future__ import annotations

import re

import libcst as cst

from stabdiag.repair.editing.source import Source, with_import

BUILDERS = ("build_model",)


IMPORTS = {"torch": "import torch", "nn": "from torch import nn", "math": "import math"}
"""What statements may use, as it is imported where the file does not bind the name yet."""


def insert(source: Source, name: str, statements: list[str], root: str = "model") -> str | None:
    """The text with statements about `root` added where the model `name` is built; None when that place is not in this file.

    The modules that the statements name are imported.

    Args:
        source: the user's file.
        name: the chosen class, factory or instance (`SubjectFacts.name`).
        statements: lines of code in which `root` stands for the model.
        root: the placeholder in them.
    """
    text = _inserted(source, name, [line for statement in statements for line in statement.splitlines()], root)
    return with_imports(text, statements) if text is not None else None


def with_imports(text: str, statements: list[str]) -> str:
    """The text with imports of the modules that statements name, where it does not bind them."""
    named = {word for statement in statements for word in re.findall(r"(?<![\w.])([A-Za-z_]\w*)(?=\.)", statement)}
    for module in (m for m in IMPORTS if m in named):
        text = with_import(text, module, IMPORTS[module])
    return text


def _inserted(source: Source, name: str, statements: list[str], root: str) -> str | None:
    for made in source.tree.body:
        if isinstance(made, cst.FunctionDef) and made.name.value in (*BUILDERS, name):
            return _in_factory(source, made, statements, root)
    for made in source.tree.body:
        if isinstance(made, cst.ClassDef) and made.name.value == name:
            for function in made.body.body:
                if isinstance(function, cst.FunctionDef) and function.name.value == "__init__":
                    last = function.body.body[-1]
                    return source.spliced([source.behind(last, _renamed(statements, root, "self"))])
    for line in source.tree.body:
        if isinstance(line, cst.SimpleStatementLine) and isinstance(line.body[0], cst.Assign):
            target = line.body[0].targets[0].target
            if isinstance(target, cst.Name) and target.value == name:
                return source.spliced([source.behind(line, _renamed(statements, root, name))])
    return None


def _in_factory(source: Source, function: cst.FunctionDef, statements: list[str], root: str) -> str | None:
    last = function.body.body[-1] if isinstance(function.body, cst.IndentedBlock) else None
    if not isinstance(last, cst.SimpleStatementLine) or not isinstance(last.body[-1], cst.Return):
        return None
    returned = last.body[-1].value
    if returned is None:
        return None
    if isinstance(returned, cst.Name):
        return source.spliced([source.before(last, _renamed(statements, root, returned.value))])
    lines = [f"{root} = {source.code(returned)}", *statements]
    return source.spliced([source.before(last, lines), (*source.span(returned), root)])


def _renamed(statements: list[str], old: str, new: str) -> list[str]:
    return [re.sub(rf"(?<![\w.]){old}\b", new, statement) for statement in statements]


def attribute(path: str, root: str = "model") -> str:
    """A module path as an expression: `layers.3.fc` is `model.layers[3].fc`."""
    text = root
    for part in path.split(".") if path else ():
        text += f"[{part}]" if part.isdigit() else f".{part}"
    return text
