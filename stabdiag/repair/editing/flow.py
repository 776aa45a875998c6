"""Where the value of a name comes from, as far as simple assignments of one function say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import libcst as cst

from stabdiag.repair.editing.source import Source


def scope(source: Source, node: cst.CSTNode) -> cst.CSTNode:
    """The function around a node, else the file."""
    return source.around(node, cst.FunctionDef) or source.tree


def assignment(source: Source, name: cst.Name) -> cst.Assign | None:
    """The assignment `name = …` that a use of the name reads; None unless it is simple and certain.

    It is certain when it is the last before the use and stands in a block around the use. What is assigned in a loop around
    the use and read before is not followed.
    """
    best: cst.CSTNode | None = None
    for assign in _assignments(source, name):
        if source.span(assign)[0] < source.span(name)[0] and not _is_part(source, name, assign):
            best = assign
    if (
        best is None
        or not isinstance(best, cst.Assign)
        or len(best.targets) != 1
        or not isinstance(best.targets[0].target, cst.Name)
    ):
        return None
    block = source.parents[source.parents[best]]
    return best if any(a is block for a in source.ancestors(name)) else None


def of_file(source: Source, name: str) -> cst.Assign | None:
    """The one assignment of a name at the top level of the file; None when there is none, or more than one."""
    found = [
        small
        for line in source.tree.body
        for small in (line.body if isinstance(line, cst.SimpleStatementLine) else ())
        if isinstance(small, cst.Assign) and isinstance(target := small.targets[0].target, cst.Name) and target.value == name
    ]
    return found[0] if len(found) == 1 else None


def _is_part(source: Source, node: cst.CSTNode, statement: cst.CSTNode) -> bool:
    return any(a is statement for a in source.ancestors(node))


def _assignments(source: Source, name: cst.Name) -> Iterator[cst.CSTNode]:
    """Everything in the scope that binds the name, in order of the text."""
    where = scope(source, name)
    for node in source.named(name.value):
        if scope(source, node) is where and (binder := _binder(source, node)) is not None:
            yield binder


def _binder(source: Source, node: cst.Name) -> cst.CSTNode | None:
    inner: cst.CSTNode = node
    for above in source.ancestors(node):
        if isinstance(above, cst.AssignTarget):
            return source.parents[above] if inner is above.target else None
        if isinstance(above, cst.AugAssign | cst.AnnAssign | cst.For | cst.NamedExpr):
            return above if above.target is inner else None
        if isinstance(above, cst.Tuple | cst.List | cst.Element | cst.StarredElement):
            inner = above
            continue
        return None
    return None


def uses(source: Source, assign: cst.Assign) -> list[cst.Name]:
    """The names that read what an assignment made."""
    target = assign.targets[0].target
    assert isinstance(target, cst.Name)
    where = scope(source, assign)
    names = [n for n in source.named(target.value) if is_read(source, n) and _within(source, n, where)]
    return [n for n in names if _read_by(source, n, assign, where)]


def _read_by(source: Source, name: cst.Name, assign: cst.Assign, where: cst.CSTNode) -> bool:
    binder = reads(source, name)
    return binder is assign or (binder is None and scope(source, name) is not where)  # a function inside reads it, too


def _within(source: Source, node: cst.CSTNode, where: cst.CSTNode) -> bool:
    return any(a is where for a in source.ancestors(node))


def is_read(source: Source, name: cst.Name) -> bool:
    """Whether a name stands for a value, not for an attribute, a keyword or a target."""
    above = source.parents[name]
    if isinstance(above, cst.Attribute) and above.attr is name:
        return False
    if isinstance(above, cst.Arg) and above.keyword is name:
        return False
    if isinstance(above, cst.Param | cst.FunctionDef | cst.ClassDef | cst.ImportAlias | cst.AsName):
        return above.__class__ is cst.Param and getattr(above, "default", None) is name
    return _binder(source, name) is None


def reads(source: Source, name: cst.Name) -> cst.CSTNode | None:
    """The last binding of a name before its use, simple or not."""
    last: cst.CSTNode | None = None
    for binder in _assignments(source, name):
        if source.span(binder)[0] < source.span(name)[0] and not _is_part(source, name, binder):
            last = binder
    return last


def same_value(source: Source, inner: cst.CSTNode, at: cst.CSTNode, dropped: Sequence[cst.CSTNode] = ()) -> bool:
    """Whether every name in an expression still means at another place of the function what it means where it stands.

    Assignments in `dropped` do not count: they are about to go.
    """
    first, last = source.span(inner)[0], source.span(at)[0]
    binders = (b for n in names_in(source, inner) for b in _assignments(source, n) if b not in dropped)
    return not any(first < source.span(b)[1] <= last for b in binders)


def names_in(source: Source, node: cst.CSTNode) -> list[cst.Name]:
    """The names read in an expression."""
    start, end = source.span(node)
    return source.all(cst.Name, lambda n: start <= source.span(n)[0] < end and is_read(source, n))
