"""Weigh and reduce the loss in float32.

A mean over many elements, or a small weight, makes gradients that float16 cannot hold; in float32 they are cast where they are
large enough. A loss scale repairs the rest.
"""

from __future__ import annotations

import libcst as cst

from stabdiag.finding import Finding
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD104", "SD302", "SD304", "SD105")
KEEPS_FUNCTION = True


def edit(source: Source, finding: Finding) -> str | None:
    """Cast what `loss` is given: one tensor, or what it takes apart."""
    loss = next((f for f in source.tree.body if isinstance(f, cst.FunctionDef) and f.name.value == "loss"), None)
    if loss is None or not loss.params.params or not isinstance(loss.body, cst.IndentedBlock):
        return None
    name = loss.params.params[0].name.value
    if f"{name}.float()" in source.code(loss) or "part.float()" in source.code(loss):
        return None
    for assign in source.all(cst.Assign, lambda a: source.around(a, cst.FunctionDef) is loss):
        if (
            isinstance(assign.value, cst.Name)
            and assign.value.value == name
            and isinstance(assign.targets[0].target, cst.Tuple)
        ):
            return source.replaced((assign.value, f"(part.float() for part in {name})"))
    return source.spliced([source.before(loss.body.body[0], [f"{name} = {name}.float()"])])
