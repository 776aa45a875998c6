"""The two halves of a model file: what `forward` returns is what `loss` is given."""

from __future__ import annotations

import libcst as cst

from stabdiag.repair.editing import flow
from stabdiag.repair.editing.source import Source


def output(source: Source, name: cst.Name) -> cst.BaseExpression | None:
    """The expression that the model returns, for a name in `loss` that stands for the model's whole output.

    The model is the class that `build_model` builds, else the last class of the file with a `forward`.
    """
    function = source.around(name, cst.FunctionDef)
    if function is None or function not in source.tree.body or function.name.value != "loss":
        return None
    first = function.params.params[:1]
    if not first or first[0].name.value != name.value or flow.reads(source, name) is not None:
        return None
    forward = _forward(source)
    returns = source.all(cst.Return, lambda r: source.around(r, cst.FunctionDef) is forward) if forward is not None else []
    return returns[0].value if len(returns) == 1 else None


def _forward(source: Source) -> cst.FunctionDef | None:
    classes = {}
    for made in source.tree.body:
        if isinstance(made, cst.ClassDef):
            for function in made.body.body:
                if isinstance(function, cst.FunctionDef) and function.name.value == "forward":
                    classes[made.name.value] = function
    build = next((f for f in source.tree.body if isinstance(f, cst.FunctionDef) and f.name.value == "build_model"), None)
    if build is not None:
        inside = [n for n in source.all(cst.Name, lambda n: n.value in classes) if source.around(n, cst.FunctionDef) is build]
        return classes[inside[-1].value] if inside else None
    return list(classes.values())[-1] if classes else None


def names_of_output(source: Source) -> list[cst.Name]:
    """Every place in `loss` where the model's whole output is read."""
    losses = [f for f in source.tree.body if isinstance(f, cst.FunctionDef) and f.name.value == "loss" and f.params.params]
    if not losses:
        return []
    names = source.named(losses[0].params.params[0].name.value)
    return [
        n for n in names if source.around(n, cst.FunctionDef) is losses[0] and flow.is_read(source, n) and output(source, n)
    ]


def readers(source: Source, returned: cst.Return) -> list[cst.Name]:
    """Where `loss` reads what a `return` of the model gives."""
    return [n for n in names_of_output(source) if output(source, n) is returned.value]
