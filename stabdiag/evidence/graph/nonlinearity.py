"""Which recorded op is which nonlinearity, read from the graph: library calls and what people write by hand alike.

A ReLU may be `F.relu`, `clamp(min=0)`, `maximum(x, 0)`, `x * (x > 0)` or `torch.where(x > 0, x, 0)`; a sigmoid may be
`1 / (1 + exp(-x))`, a tanh `(exp(x) - exp(-x)) / (exp(x) + exp(-x))`, a softsign `x / (1 + abs(x))`.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.trace import Op, Run

RELU_OPS = (
    "relu",
    "clamp",
    "clamp_min",
    "threshold",
    "hardtanh",
    "maximum",
    "mul",
    "where",
    "masked_fill",
    "add",
)
SQUASHING_OPS = {
    "sigmoid": ("sigmoid", "reciprocal", "div"),
    "tanh": ("tanh", "div"),
    "softsign": ("div",),
    "hardsigmoid": ("hardsigmoid",),
    "hardtanh": ("hardtanh",),
    "hardswish": ("hardswish",),
}
_ZEROS = ("zeros", "zeros_like", "new_zeros", "scalar_tensor", "full", "full_like", "lift_fresh")
_GREATER, _LESS = ("gt", "ge"), ("lt", "le")


def is_relu(run: Run, op: Op) -> bool:
    """Whether a forward op sets what is not positive to zero and keeps what is."""
    if op.phase != "forward":
        return False
    name, given = op.name, op.attributes
    if name == "relu":
        return True
    if name in ("clamp", "clamp_min"):
        upper = given.get("max")
        return given.get("min") == 0 and len(op.inputs) == 1 and (upper is None or upper > 0)
    if name == "threshold":
        return bool(given.get("value") == 0 and given.get("threshold", -1) >= 0)
    if name == "hardtanh":
        return bool(given.get("min_val", -1) == 0)
    if name == "maximum":
        return len(op.inputs) == 2 and any(_is_zero(run, i) for i in op.inputs)
    if name == "mul" and len(op.inputs) == 2:
        a, b = op.inputs
        return _compares(run, a, b, _GREATER) or _compares(run, b, a, _GREATER)
    if name == "where" and len(op.inputs) == 3:
        mask, a, b = op.inputs
        return (_is_zero(run, b) and _compares(run, mask, a, _GREATER)) or (_is_zero(run, a) and _compares(run, mask, b, _LESS))
    if name == "add" and len(op.inputs) == 2:  # (x + |x|) / 2
        size = _made_by(run, op.inputs[1], "abs") or _made_by(run, op.inputs[0], "abs")
        return size is not None and all(_same(run, i, size.inputs[0]) or _same(run, i, size.outputs[0]) for i in op.inputs)
    if name == "masked_fill" and len(op.inputs) >= 2:
        return given.get("value") == 0 and _compares(run, op.inputs[1], op.inputs[0], _LESS)
    return False


def squashing(run: Run, op: Op) -> str | None:
    """Which bounded nonlinearity a forward op computes: "sigmoid", "tanh", "hardsigmoid", "hardtanh", "hardswish" (flat on one
    side) or "softsign"; None for none of them."""
    if op.phase != "forward":
        return None
    name = op.name
    if name in ("sigmoid", "tanh", "hardsigmoid", "hardswish"):
        return name
    if name == "hardtanh":
        return "hardtanh" if op.attributes.get("min_val", -1) < 0 else None
    if name == "reciprocal":
        return "sigmoid" if _one_plus_exp(run, op.inputs[0]) else None
    if name == "div" and len(op.inputs) == 2:
        return _quotient(run, *op.inputs)
    return None


def gates(run: Run, op: Op) -> bool:
    """Whether the result multiplies another signal that is computed from the input (a gate)."""
    for value_id in shown(run, op.outputs[0]):
        for user in run.consumers(value_id):
            if user.phase != "forward" or user.name != "mul" or len(user.inputs) != 2:
                continue
            other = user.inputs[1] if user.inputs[0] == value_id else user.inputs[0]
            if run.values[run.behind_views(other)].kind in ("result", "input"):
                return True
    return False


def is_output(run: Run, op: Op) -> bool:
    """Whether the result is what the model returns, or is read by nothing but the loss."""
    values = list(shown(run, op.outputs[0]))
    if any(v in run.outputs for v in values):
        return True
    users = [u for v in values for u in run.consumers(v) if not u.view and u.phase in ("forward", "loss")]
    return bool(users) and all(u.phase == "loss" for u in users)


def shown(run: Run, value_id: int) -> Iterator[int]:
    """A value and every view of it, following forward and loss ops."""
    stack = [value_id]
    while stack:
        value_id = stack.pop()
        yield value_id
        for user in run.consumers(value_id):
            if user.view and user.phase in ("forward", "loss") and user.inputs[0] == value_id:
                stack.extend(user.outputs)


def _is_zero(run: Run, value_id: int) -> bool:
    source = run.behind_views(value_id)
    value, op = run.values[source], run.producer(source)
    if op is None:
        return value.kind == "constant" and len(value.shape) == 0  # what it holds is checked where it is measured
    return op.name in _ZEROS and op.attributes.get("fill_value", op.attributes.get("s", 0)) == 0


def _compares(run: Run, mask: int, operand: int, names: tuple[str, ...]) -> bool:
    """Whether `mask` is `operand > 0` (or another comparison in `names`)."""
    op = run.producer(run.behind_views(mask))
    if op is None or op.name not in names:
        return False
    against = op.attributes.get("other") == 0 or (len(op.inputs) == 2 and _is_zero(run, op.inputs[1]))
    return against and _same(run, op.inputs[0], operand)


def _made_by(run: Run, value_id: int, *names: str) -> Op | None:
    op = run.producer(run.behind_views(value_id))
    return op if op is not None and op.name in names else None


def _one_plus_exp(run: Run, value_id: int) -> bool:
    plus = _made_by(run, value_id, "add")
    return (
        plus is not None and plus.attributes.get("other") == 1 and any(_made_by(run, i, "exp") is not None for i in plus.inputs)
    )


def _quotient(run: Run, above: int, below: int) -> str | None:
    plus = _made_by(run, below, "add")
    if plus is None:
        return None
    if len(plus.inputs) == 1 and plus.attributes.get("other") == 1:
        size = _made_by(run, plus.inputs[0], "abs")
        if size is not None and _same(run, size.inputs[0], above):
            return "softsign"
        return "sigmoid" if _made_by(run, above, "exp") is not None and _same(run, above, plus.inputs[0]) else None
    minus = _made_by(run, above, "sub")
    if minus is not None and len(plus.inputs) == 2 and all(_made_by(run, i, "exp") is not None for i in plus.inputs):
        return "tanh" if all(_same(run, a, b) for a, b in zip(plus.inputs, minus.inputs, strict=True)) else None
    return None


def _same(run: Run, a: int, b: int, depth: int = 4) -> bool:
    """Whether two values are equal by construction: the same one behind views, or the same op on the same values."""
    a, b = run.behind_views(a), run.behind_views(b)
    if a == b:
        return True
    one, other = run.producer(a), run.producer(b)
    return (
        depth > 0
        and one is not None
        and other is not None
        and (one.name, one.attributes, len(one.inputs)) == (other.name, other.attributes, len(other.inputs))
        and one.name in ("exp", "neg", "abs", "clamp", "clamp_max", "clamp_min", "mul", "add", "sub", "div")
        and all(_same(run, i, j, depth - 1) for i, j in zip(one.inputs, other.inputs, strict=True))
    )
