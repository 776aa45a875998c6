"""Islands of higher precision in the text: operands cast up, the result cast back to the dtype they came in."""

from __future__ import annotations

import libcst as cst

from stabdiag.repair.editing import flow
from stabdiag.repair.editing.pattern import constant
from stabdiag.repair.editing.rewrite import nearby, outwards, replacement
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import head, namespaces
from stabdiag.trace import Location

_CASTS = ("float", "double")
_OF_ONE_DTYPE = frozenset(
    [
        *("matmul", "dot", "mv", "outer", "addmm", "baddbmm", "linear", "bilinear", "cdist", "dist", "atan2", "lerp", "kron"),
        *("cosine_similarity", "pairwise_distance", "maximum", "minimum", "logaddexp", "add", "sub", "mul", "div"),
        *("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "binary_cross_entropy"),
        *("binary_cross_entropy_with_logits", "conv1d", "conv2d", "conv3d"),
    ]
)
"""Functions all of whose tensors have to be of one dtype; others take indices or sizes behind the first."""


def island(source: Source, location: Location | None, cast: str) -> str | None:
    """The text with the function around a location in another precision where it calls no module, else its expression.

    Args:
        source: the file.
        location: of the op that needs the precision.
        cast: "float" or "double", the method that casts up.
    """
    marked = source.at(location)
    if marked is None:
        return None
    function = source.around(marked, cst.FunctionDef)
    if function is not None and any(f"{n}.{cast}()" in source.code(function) for n in _arguments(function)):
        return None
    if function is not None and function.name.value not in ("__init__", "build_model", "example_inputs"):
        whole = _function(source, function, cast)
        if whole is not None:
            return whole
    return _expression(source, marked, cast)


def _function(source: Source, function: cst.FunctionDef, cast: str) -> str | None:
    """Cast the arguments up first and the result down last: for functions without layers and with one result."""
    calls = source.all(cst.Call, lambda c: source.around(c, cst.FunctionDef) is function)
    if any(_is_module_call(c) for c in calls):
        return None
    returns = source.all(cst.Return, lambda r: source.around(r, cst.FunctionDef) is function)
    tensors = [n for n in _arguments(function) if _is_tensor(source, function, n)]
    if len(returns) != 1 or not tensors or returns[0].value is None or isinstance(returns[0].value, cst.Tuple | cst.Dict):
        return None
    body = function.body.body
    first = next((s for s in body if isinstance(s, cst.BaseStatement) and not _is_docstring(s)), None)
    if first is None or f"{tensors[0]}.{cast}()" in source.code(first):
        return None
    lines = [f"{n} = {n}.{cast}()" for n in tensors]
    splices = []
    if function.name.value != "loss":
        lines.insert(0, f"dtype = {tensors[0]}.dtype")
        code = source.code(returns[0].value)
        simple = isinstance(returns[0].value, cst.Name | cst.Call | cst.Attribute | cst.Subscript)
        splices.append((*source.span(returns[0].value), f"{code}.to(dtype)" if simple else f"({code}).to(dtype)"))
    if source.named("dtype") and len(lines) > len(tensors):
        return None
    return source.spliced([source.before(first, lines), *splices])


def _arguments(function: cst.FunctionDef) -> list[str]:
    return [p.name.value for p in function.params.params if p.name.value != "self" and p.default is None]


def _is_module_call(call: cst.Call) -> bool:
    """`self.layer(x)`, `self.layers[0](x)`."""
    function = call.func
    while isinstance(function, cst.Subscript):
        function = function.value
    return isinstance(function, cst.Attribute) and isinstance(function.value, cst.Name) and function.value.value == "self"


def _is_tensor(source: Source, function: cst.FunctionDef, name: str) -> bool:
    """Whether an argument is used as a tensor: in arithmetic, or as the receiver of a method."""
    for use in source.named(name):
        if source.around(use, cst.FunctionDef) is not function or not flow.is_read(source, use):
            continue
        above = source.parents[use]
        if isinstance(above, cst.BinaryOperation) or (isinstance(above, cst.Attribute) and above.attr.value != "shape"):
            return True
        if isinstance(above, cst.Arg) and (made := head(source, source.parents[above])) is not None and use in made.operands:  # type: ignore[arg-type]
            return True
    return False


def _is_docstring(statement: cst.CSTNode) -> bool:
    return (
        isinstance(statement, cst.SimpleStatementLine)
        and isinstance(statement.body[0], cst.Expr)
        and isinstance(statement.body[0].value, cst.SimpleString)
    )


def _expression(source: Source, marked: cst.BaseExpression, cast: str) -> str | None:
    """The largest part of the statement without a module call around the marked op."""
    best: cst.BaseExpression | None = None
    for node in (marked, *outwards(source, marked)):
        if head(source, node) is None:
            continue
        inside = [n for n in nearby(source, node) if isinstance(n, cst.Call) and _within(source, n, node)]
        if any(_is_module_call(c) for c in inside):
            break
        best = node
    if best is None:
        return None
    if _target(source, best) is not None:
        return None  # what is cast down by the author is not kept from it by a cast up before
    casts = [n for n in _calls(source, best) if _target(source, n) is not None]
    names = [n for n in flow.names_in(source, best) if n.value not in namespaces(source) and n.value != "self"]
    names = [n for n in names if not any(_within(source, n, c) for c in casts) and constant(source, n) is None]
    tensors = [n for n in names if _is_operand(source, n)]
    if not (tensors or casts) or any(_is_cast(source, n, cast) for n in tensors):
        return None
    dtype = _target(source, casts[0]) if casts else f"{tensors[0].value}.dtype"
    changes = [(*source.span(name), f"{name.value}.{cast}()") for name in tensors]
    changes += [(*source.span(c), f"{source.code(_receiver(c))}.{cast}()") for c in casts]
    code, start = source.code(best), source.span(best)[0]
    for first, end, new in sorted(changes, reverse=True):
        code = code[: first - start] + new + code[end - start :]
    made = cst.parse_expression(code)
    text = code if isinstance(made, cst.Call | cst.Name) else f"({code})"
    return source.spliced([replacement(source, best, f"{text}.to({dtype})")])


def _calls(source: Source, node: cst.BaseExpression) -> list[cst.Call]:
    return source.all(cst.Call, lambda call: _within(source, call, node))


def _receiver(call: cst.Call) -> cst.BaseExpression:
    assert isinstance(call.func, cst.Attribute)
    return call.func.value


def _target(source: Source, node: cst.BaseExpression) -> str | None:
    """The dtype of another tensor, or of 16 bits, that an expression casts its receiver to, as code; else None."""
    if not isinstance(node, cst.Call) or not isinstance(node.func, cst.Attribute):
        return None
    name = node.func.attr.value
    if name in ("half", "bfloat16") and not node.args:
        return f"torch.{'float16' if name == 'half' else name}"
    if name == "type_as" and len(node.args) == 1:
        return f"{source.code(node.args[0].value)}.dtype"
    if name == "to" and len(node.args) == 1:
        given = source.code(node.args[0].value)
        return given if given.endswith((".dtype", "float16", ".half")) else None
    return None


def _within(source: Source, node: cst.CSTNode, outer: cst.CSTNode) -> bool:
    return source.span(outer)[0] <= source.span(node)[0] and source.span(node)[1] <= source.span(outer)[1]


def _is_operand(source: Source, name: cst.Name) -> bool:
    """Whether a name stands for a tensor that is computed with, not for a size, a dimension or a number."""
    above = source.parents[name]
    if isinstance(above, cst.Attribute):
        return above.attr.value not in ("shape", "dtype", "device", "ndim")
    if isinstance(above, cst.Subscript | cst.BinaryOperation | cst.UnaryOperation):
        return True
    call = source.parents[above] if isinstance(above, cst.Arg) else None
    made = head(source, call) if isinstance(call, cst.Call) else None
    if made is None or name not in made.operands:
        return False
    return made.operands[0] is name or made.op in _OF_ONE_DTYPE


def _is_cast(source: Source, name: cst.Name, cast: str) -> bool:
    above = source.parents[name]
    return isinstance(above, cst.Attribute) and above.attr.value in (cast, "double")
