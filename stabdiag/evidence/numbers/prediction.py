"""What a format would do to a model, read from the reference run alone: which values would be held in it, which overflow.

The reference runs in float64, so what the author upcasts himself (`x.float()`) shows as float32 there and stays wide in every
precision; so does all that is computed with it.
"""

from __future__ import annotations

from math import isfinite, prod

from stabdiag.evidence.graph.main_path import is_live
from stabdiag.evidence.numbers.poison import WRITES_A_CONSTANT
from stabdiag.trace import Op, Run, Stats, Value
from stabdiag.trace.formats import format_of

# What autocast computes in the narrow format, and what it computes in float32 (PyTorch's CUDA autocast op reference).
AUTOCAST_NARROW = frozenset(
    ["mm", "addmm", "bmm", "baddbmm", "addbmm", "addmv", "mv", "matmul", "linear", "convolution", "_convolution", "_trilinear"]
)
AUTOCAST_FLOAT32 = frozenset(
    [
        *(
            "acos",
            "asin",
            "cosh",
            "sinh",
            "tan",
            "erfinv",
            "exp",
            "expm1",
            "log",
            "log10",
            "log1p",
            "log2",
            "reciprocal",
            "rsqrt",
        ),
        *("pow", "softplus", "_softmax", "_log_softmax", "native_layer_norm", "native_group_norm", "_fused_rms_norm"),
        *("linalg_vector_norm", "norm", "_cdist_forward", "renorm", "cumprod", "cumsum", "prod", "sum", "logsumexp"),
        *("mse_loss", "smooth_l1_loss", "huber_loss", "nll_loss_forward", "nll_loss2d_forward", "binary_cross_entropy"),
        *("binary_cross_entropy_with_logits", "soft_margin_loss", "dist"),
    ]
)
# Consumers for which an overflow is as good as the true value: (to minus infinity, to plus infinity).
_SATURATES = {
    **dict.fromkeys(("tanh", "sigmoid", "erf", "hardtanh", "hardsigmoid", "sign", "atan"), (True, True)),
    **dict.fromkeys(("ge", "gt", "le", "lt", "eq", "ne", "isinf", "isnan", "isfinite", "argmax", "argmin"), (True, True)),
    **dict.fromkeys(("_softmax", "exp", "relu", "logsumexp", "amax", "max", "maximum", "threshold"), (True, False)),
    **dict.fromkeys(("amin", "min", "minimum"), (False, True)),
}


def narrow(reference: Run, precision: str) -> set[int]:
    """Ids of the forward values that a precision holds in its narrow format."""
    autocast = precision.startswith("amp-")
    narrow_ids: set[int] = set()
    for value_id, value in enumerate(reference.values):
        if value.op is None and not autocast and value.dtype == reference.precision:
            narrow_ids.add(value_id)
    for op in reference.phase("forward", "loss"):
        if _is_narrow(reference, op, narrow_ids, autocast):
            narrow_ids.update(v for v in op.outputs if _floating(reference.values[v]))
    return narrow_ids


def _is_narrow(reference: Run, op: Op, narrow_ids: set[int], autocast: bool) -> bool:
    output = reference.output_of(op)
    if output is None or not _floating(output):
        return False
    inputs = [v for v in op.inputs if _floating(reference.values[v])]
    if op.name == "_to_copy" or not inputs:
        return output.dtype == reference.precision and (not autocast or (bool(inputs) and inputs[0] in narrow_ids))
    if op.name in AUTOCAST_NARROW:  # without autocast the factors of a product have one dtype
        return autocast or any(v in narrow_ids for v in inputs)
    if autocast and op.name in AUTOCAST_FLOAT32:
        return False
    promoting = [v for v in inputs if reference.values[v].shape != ()] or inputs
    return all(v in narrow_ids for v in promoting)


def _floating(value: Value) -> bool:
    return value.dtype.startswith(("float", "bfloat"))


def overflows(reference: Run, precision: str) -> list[tuple[Op, float]]:
    """Ops whose result would leave the format's range although their inputs fit, with the largest magnitude; only where it
    would change a result: live, computed from data or weights, and not absorbed by every consumer."""
    limit = format_of(precision).max
    held = narrow(reference, precision)
    found = []
    for op in reference.phase("forward", "loss"):
        output = reference.output_of(op)
        if output is None or output.stats is None or op.view or op.outputs[0] not in held:
            continue
        largest = output.stats.max_abs
        if largest <= limit or op.name in WRITES_A_CONSTANT or not is_live(reference, op.index):
            continue
        if any(_largest(reference, v) > limit for v in op.inputs) or _absorbed(reference, op.outputs[0], output.stats, limit):
            continue
        found.append((op, largest))
    return found


def overflowing_counts(reference: Run, precision: str) -> list[tuple[Op, int]]:
    """Averaging losses that keep the number of their elements in the format, where it is infinite: the loss is right and its
    gradient is divided by infinity."""
    held = narrow(reference, precision)
    found = []
    for op in reference.phase("forward", "loss"):
        if (
            op.name in ("nll_loss_forward", "nll_loss2d_forward")
            and op.outputs[0] in held
            and op.attributes.get("reduction") == 1
        ):
            targets = reference.values[op.inputs[1]].shape
            if prod(targets) > format_of(precision).max:
                found.append((op, prod(targets)))
    return found


def _largest(reference: Run, value_id: int) -> float:
    stats = reference.values[reference.behind_views(value_id)].stats
    return stats.max_abs if stats is not None else 0.0


def _absorbed(reference: Run, value_id: int, stats: Stats, limit: float) -> bool:
    consumers = [op for op in reference.consumers(value_id) if op.phase in ("forward", "loss") and is_live(reference, op.index)]
    for op in consumers:
        low, high = _SATURATES.get(op.name, (False, False))
        if op.view and _absorbed(reference, op.outputs[0], stats, limit):
            continue
        if (stats.min < -limit and not low) or (stats.max > limit and not high):
            return False
    return bool(consumers)


def headroom(run: Run, precision: str) -> tuple[float, Op] | None:
    """The fewest bits between a live forward value held in the format and the format's largest value, and the op that made it;
    constants that the author writes do not count, nor do scalars of the loss, which training makes smaller. None when nothing
    was measured."""
    limits = format_of(precision)
    held = narrow(run, precision) if run.precision in ("float64", "float32") else None
    best: tuple[float, Op] | None = None
    for op in run.phase("forward", "loss"):
        output = run.output_of(op)
        if output is None or output.stats is None or op.view or op.name in WRITES_A_CONSTANT:
            continue
        if op.phase == "loss" and output.shape == ():
            continue
        if (output.dtype != limits.name if held is None else op.outputs[0] not in held) or not is_live(run, op.index):
            continue
        bits = output.stats.headroom(limits)
        if not isfinite(bits) or (best is not None and bits >= best[0]):
            continue
        if not _owed_to_a_constant(run, op.outputs[0]):
            best = (bits, op)
    return best


def _owed_to_a_constant(run: Run, value_id: int) -> bool:
    """Whether a value has its size from a mask (-1e4, the smallest number of a format): from a constant that the author writes,
    or from what is computed from nothing else. The size is followed back through the largest operand that explains it."""
    while True:
        value_id = run.behind_views(value_id)
        made, op = run.values[value_id].stats, run.producer(value_id)
        if not from_data(run, value_id):
            return True
        if made is None or op is None:
            return False
        written = op.attributes.get("value")
        if op.name in WRITES_A_CONSTANT and isinstance(written, int | float) and made.max_abs <= 2 * abs(written):
            return True
        sizes = [(s.max_abs, v) for v in op.inputs if (s := run.values[run.behind_views(v)].stats) is not None]
        largest, value_id = max(sizes, default=(0.0, -1))
        if not 0 < made.max_abs <= 2 * largest:
            return False


def from_data(run: Run, value_id: int, steps: int = 60) -> bool:
    """Whether a value depends on a floating-point input or a parameter through floating-point values."""
    stack = [value_id]
    while stack and steps:
        steps -= 1
        value = run.values[current := stack.pop()]
        if not _floating(value):
            continue
        op = run.producer(current)
        if op is None:
            if value.kind in ("input", "parameter"):
                return True
            continue
        if op.name not in ("full_like", "zeros_like", "ones_like", "new_full"):
            stack.extend(op.inputs)
    return bool(stack)
