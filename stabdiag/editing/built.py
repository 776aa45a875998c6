"""Statements that run once the model is built, written where its author builds it.

The place is the end of the constructor of the scanned class, the line before the return of the factory, or the line behind the
module-level assignment: whichever made the subject. Where none of them is in the file, the function form is left to the author.
"""

from __future__ import annotations

import libcst as cst

from stabdiag.editing.source import Source

BUILDERS = ("build_model",)


def insert(source: Source, name: str, statements: list[str], root: str = "model") -> str | None:
    """The text with statements about `root` added where the model `name` is built; None when that place is not in this file.

    Args:
        source: the user's file.
        name: the chosen class, factory or instance (`SubjectFacts.name`).
        statements: lines of code in which `root` stands for the model.
        root: the placeholder in them.
    """
    for function in source.all(cst.FunctionDef, lambda f: f.name.value in (*BUILDERS, name)):
        if _is_top_level(source, function):
            return _in_factory(source, function, statements, root)
    for made in source.all(cst.ClassDef, lambda c: c.name.value == name):
        for function in (s for s in made.body.body if isinstance(s, cst.FunctionDef) and s.name.value == "__init__"):
            return source.replaced((function.body, _extended(function.body, _renamed(statements, root, "self"))))
    for line in source.tree.body:
        if isinstance(line, cst.SimpleStatementLine) and isinstance(line.body[0], cst.Assign):
            target = line.body[0].targets[0].target
            if isinstance(target, cst.Name) and target.value == name:
                added = [cst.parse_statement(s) for s in _renamed(statements, root, name)]
                at = list(source.tree.body).index(line) + 1
                body = [*source.tree.body[:at], *added, *source.tree.body[at:]]
                return source.tree.with_changes(body=body).code
    return None


def _is_top_level(source: Source, function: cst.FunctionDef) -> bool:
    return any(function is statement for statement in source.tree.body)


def _in_factory(source: Source, function: cst.FunctionDef, statements: list[str], root: str) -> str | None:
    if not isinstance(function.body, cst.IndentedBlock) or not function.body.body:
        return None
    *before, last = function.body.body
    if not isinstance(last, cst.SimpleStatementLine) or not isinstance(last.body[-1], cst.Return):
        return None
    returned = last.body[-1].value
    if returned is None:
        return None
    if isinstance(returned, cst.Name):
        added = [cst.parse_statement(s) for s in _renamed(statements, root, returned.value)]
        lines = [*before, *added, last]
    else:
        assignment = cst.parse_statement(f"{root} = {source.code(returned)}")
        added = [cst.parse_statement(s) for s in statements]
        lines = [*before, assignment, *added, cst.parse_statement(f"return {root}")]
    return source.replaced((function.body, function.body.with_changes(body=lines)))


def _extended(body: cst.BaseSuite, statements: list[str]) -> cst.BaseSuite:
    return body.with_changes(body=[*body.body, *(cst.parse_statement(s) for s in statements)])


def _renamed(statements: list[str], old: str, new: str) -> list[str]:
    class Rename(cst.CSTTransformer):
        def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.Name:
            return updated_node.with_changes(value=new) if updated_node.value == old else updated_node

    return [cst.Module([cst.parse_statement(s)]).visit(Rename()).code for s in statements] if old != new else statements


def attribute(path: str, root: str = "model") -> str:
    """A module path as an expression: `layers.3.fc` is `model.layers[3].fc`."""
    text = root
    for part in path.split(".") if path else ():
        text += f"[{part}]" if part.isdigit() else f".{part}"
    return text
