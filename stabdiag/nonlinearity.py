"""Which recorded op is which nonlinearity, read from the graph: library calls and what people write by hand alike.

A ReLU may be `F.relu`, `clamp(min=0)`, `maximum(x, 0)`, `x * (x > 0)` or `torch.where(x > 0, x, 0)`; a sigmoid may be
`1 / (1 + exp(-x))`, a tanh `(exp(x) - exp(-x)) / (exp(x) + exp(-x))`, a softsign `x / (1 + abs(x))`.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.trace import Op, Run

RELU_OPS = (
    "relu",
    "relu_",
    "clamp",
    "clamp_",
    "clamp_min",
    "clamp_min_",
    "threshold",
    "threshold_",
    "hardtanh",
    "hardtanh_",
    "maximum",
    "mul",
    "where",
    "masked_fill",
)
SQUASHING_OPS = {
    "sigmoid": ("sigmoid", "sigmoid_", "reciprocal", "div"),
    "tanh": ("tanh", "tanh_", "div"),
    "softsign": ("div",),
    "hardsigmoid": ("hardsigmoid", "hardsigmoid_"),
    "hardtanh": ("hardtanh", "hardtanh_"),
    "hardswish": ("hardswish", "hardswish_"),
}
_ZEROS = ("zeros", "zeros_like", "new_zeros", "scalar_tensor", "full", "full_like", "lift_fresh")
_GREATER, _LESS = ("gt", "ge"), ("lt", "le")


def is_relu(run: Run, op: Op) -> bool:
    """Whether a forward op sets what is not positive to zero and keeps what is."""
    if op.phase != "forward":
        return False
    name, given = op.name.rstrip("_"), op.attributes
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
        return (_is_zero(run, b) and _compares(run, mask, a, _GREATER)) or (
            _is_zero(run, a) and _compares(run, mask, b, _LESS)
        )
    if name == "masked_fill" and len(op.inputs) >= 2:
        return given.get("value") == 0 and _compares(run, op.inputs[1], op.inputs[0], _LESS)
    return False


def squashing(run: Run, op: Op) -> str | None:
    """Which bounded nonlinearity a forward op computes: "sigmoid", "tanh", "hardsigmoid", "hardtanh", "hardswish" (flat on one
    side) or "softsign"; None for none of them."""
    if op.phase != "forward":
        return None
    name = op.name.rstrip("_")
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
            if user.phase != "forward" or user.name not in ("mul", "mul_") or len(user.inputs) != 2:
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
    return against and run.behind_views(op.inputs[0]) == run.behind_views(operand)


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
        same = size is not None and run.behind_views(size.inputs[0]) == run.behind_views(above)
        if same:
            return "softsign"
        power = run.behind_views(plus.inputs[0])
        return "sigmoid" if _made_by(run, power, "exp") is not None and run.behind_views(above) == power else None
    minus = _made_by(run, above, "sub")
    if minus is not None and len(plus.inputs) == 2 and all(_made_by(run, i, "exp") is not None for i in plus.inputs):
        return "tanh" if {*map(run.behind_views, plus.inputs)} == {*map(run.behind_views, minus.inputs)} else None
    return None
