"""Carry the signal past the layer (a residual connection).

`x = x + f(x)` hands signal and gradient on unchanged beside what f makes of them (He et al. 2016, arXiv:1512.03385), so neither
vanishes with depth, and rows that f makes alike stay apart (Dong, Cordonnier & Loukas 2021, arXiv:2103.03404).
"""

from __future__ import annotations

import libcst as cst

from stabdiag.finding import Finding
from stabdiag.repair.editing.source import Source

REPAIRS = ("SD101", "SD205", "SD502")
KEEPS_FUNCTION = False


def edit(source: Source, finding: Finding) -> str | None:
    """Where the line of the finding assigns a name an expression of itself that does not add it already."""
    node = source.at(finding.location)
    line = source.around(node, cst.Assign) if node is not None else None
    if line is None or not _of_itself(line):
        return None
    name = source.code(line.targets[0].target)
    start, end = source.span(line.value)
    value = source.text[start:end]
    simple = isinstance(line.value, cst.Call | cst.Name | cst.Attribute | cst.Subscript)
    return source.spliced([(start, end, f"{name} + {value}" if simple else f"{name} + ({value})")])


def _of_itself(line: cst.Assign) -> bool:
    target = line.targets[0].target
    if len(line.targets) != 1 or not isinstance(target, cst.Name) or isinstance(line.value, cst.BinaryOperation):
        return False
    return any(isinstance(node, cst.Name) and node.value == target.value for node in _nodes(line.value))


def _nodes(node: cst.CSTNode) -> list[cst.CSTNode]:
    return [node, *(inner for child in node.children for inner in _nodes(child))]
