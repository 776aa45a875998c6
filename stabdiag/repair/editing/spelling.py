"""What an expression means, however it is spelled: `torch.sqrt(x)`, `x.sqrt()` and `x ** 0.5` are all `sqrt(x)`.

Namespaces are what the file imports; modules made in a constructor (`self.act = nn.Sigmoid()`) count as the functions they are.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import libcst as cst

from stabdiag.repair.editing.source import Source, bound

_BINARY = {
    cst.Add: "add",
    cst.Subtract: "sub",
    cst.Multiply: "mul",
    cst.Divide: "div",
    cst.MatrixMultiply: "matmul",
    cst.Power: "pow",
}
_SAME = {
    "bmm": "matmul",
    "mm": "matmul",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "true_divide": "div",
    "negative": "neg",
    "clip": "clamp",
    "vector_norm": "norm",
    "swapaxes": "transpose",
    "t": "transpose",
    "nllloss": "nll_loss",
    "bceloss": "binary_cross_entropy",
    "crossentropyloss": "cross_entropy",
    "logsoftmax": "log_softmax",
    "leakyrelu": "leaky_relu",
}
_POWERS = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt"}
_ACTIVATIONS = re.compile(r"Softmax|LogSoftmax|Sigmoid|Tanh|ReLU|Softplus|LogSigmoid|NLLLoss|BCELoss|CrossEntropyLoss")


@dataclass(frozen=True)
class Head:
    """The outermost operation of an expression.

    Attributes:
        op: its name ("softmax", "add", "matmul"), lower case.
        operands: the tensors it is applied to, in order: the receiver of a method first, then the positional arguments.
        arguments: everything behind the receiver or the first argument, as written, for calls.
    """

    op: str
    operands: tuple[cst.BaseExpression, ...]
    arguments: tuple[cst.Arg, ...] = ()


def head(source: Source, node: cst.BaseExpression) -> Head | None:
    """The outermost operation; None for names, literals and what has no operation of a tensor."""
    if (head, node) not in source.memory:
        source.memory[head, node] = _head(source, node)
    known: Head | None = source.memory[head, node]
    return known


def _head(source: Source, node: cst.BaseExpression) -> Head | None:
    if isinstance(node, cst.BinaryOperation):
        op = _BINARY.get(type(node.operator))
        return _power(op, (node.left, node.right)) if op else None
    if isinstance(node, cst.UnaryOperation) and isinstance(node.operator, cst.Minus):
        return Head("neg", (node.expression,))
    if isinstance(node, cst.Attribute) and node.attr.value in ("T", "mT", "mH"):
        return Head("transpose", (node.value,))
    if isinstance(node, cst.Subscript):
        return Head("index", (node.value,))
    if isinstance(node, cst.Call):
        return _call(source, node)
    return None


def _call(source: Source, node: cst.Call) -> Head | None:
    name, args = _function(source, node.func), tuple(node.args)
    if any(arg.star for arg in args):
        return None
    if name is None:
        made = node.func if isinstance(node.func, cst.Call) else constructor(source, node.func)
        if made is not None and args and (kind := _function(source, made.func)) and _ACTIVATIONS.fullmatch(kind):
            return Head(_SAME.get(kind.lower(), kind.lower()), _positional(args), tuple(made.args))
        if isinstance(node.func, cst.Attribute) and not _is_self(node.func.value):
            op = _SAME.get(node.func.attr.value, node.func.attr.value)
            return _power(op, (node.func.value, *_positional(args)), args)
        return None
    if not args or args[0].keyword is not None:
        return None
    return _power(_SAME.get(name, name), _positional(args), args[1:])


def _positional(args: tuple[cst.Arg, ...]) -> tuple[cst.BaseExpression, ...]:
    return tuple(arg.value for arg in args if arg.keyword is None)


def _power(op: str, operands: tuple[cst.BaseExpression, ...], arguments: tuple[cst.Arg, ...] = ()) -> Head:
    """`x ** 2`, `x * x` and `x.pow(2)` are squares, `x ** 0.5` is a root."""
    if op == "pow" and len(operands) == 2 and (named := _POWERS.get(number(operands[1]) or 0.0)):
        return Head(named, operands[:1])
    if op == "mul" and len(operands) == 2 and operands[0].deep_equals(operands[1]):
        return Head("square", operands[:1])
    return Head(op, operands, arguments)


def _function(source: Source, function: cst.BaseExpression) -> str | None:
    """The last name of a function of an imported namespace (`F.softmax`, `softmax`), None for methods."""
    root = function
    while isinstance(root, cst.Attribute):
        root = root.value
    if not isinstance(root, cst.Name) or root.value not in namespaces(source):
        return None
    return function.attr.value if isinstance(function, cst.Attribute) else namespaces(source)[root.value].rpartition(".")[2]


def namespaces(source: Source) -> dict[str, str]:
    """Every name that an import of the file binds -> what it stands for."""
    if namespaces not in source.memory:
        imports: list[cst.Import | cst.ImportFrom] = [*source.all(cst.Import), *source.all(cst.ImportFrom)]
        source.memory[namespaces] = {name: whole for line in imports for name, whole in bound(line).items()}
    known: dict[str, str] = source.memory[namespaces]
    return known


def spelled(source: Source, module: str) -> str:
    """How the file says "torch", "torch.nn" or "torch.nn.functional"."""
    names = {whole: name for name, whole in namespaces(source).items()}
    if module in names:
        return names[module]
    above, _, last = module.rpartition(".")
    return f"{spelled(source, above)}.{last}" if above else module


def spell(source: Source, code: str) -> str:
    """Code with `torch.`, `F.` and `nn.` as the file calls these modules."""
    modules = {"torch": "torch", "F": "torch.nn.functional", "nn": "torch.nn"}
    return re.sub(r"(?<![\w.])(torch|F|nn)(?=\.)", lambda found: spelled(source, modules[found[1]]), code)


def constructor(source: Source, function: cst.BaseExpression) -> cst.Call | None:
    """The constructor call of the module that `self.name` holds, from the constructor of the class around."""
    if not isinstance(function, cst.Attribute) or not _is_self(function.value):
        return None
    owner = source.around(function, cst.ClassDef)
    if owner is None:
        return None
    for assign in source.all(cst.Assign, lambda a: source.around(a, cst.ClassDef) is owner):
        for target in assign.targets:
            if isinstance(target.target, cst.Attribute) and target.target.deep_equals(function):
                return assign.value if isinstance(assign.value, cst.Call) else None
    return None


def _is_self(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Name) and node.value == "self"


def number(node: cst.CSTNode) -> float | None:
    """The value of a numeric literal, `float("-inf")` and `-math.inf` included."""
    if isinstance(node, cst.Integer | cst.Float):
        return float(node.evaluated_value)
    if isinstance(node, cst.UnaryOperation) and isinstance(node.operator, cst.Minus):
        inner = number(node.expression)
        return None if inner is None else -inner
    if isinstance(node, cst.Attribute) and node.attr.value == "inf":
        return math.inf
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value == "float" and len(node.args) == 1:
        text = node.args[0].value
        if isinstance(text, cst.SimpleString) and isinstance(text.evaluated_value, str):
            try:
                return float(text.evaluated_value)
            except ValueError:
                return None
        return number(text)
    return None
