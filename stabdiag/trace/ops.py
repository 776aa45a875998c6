"""What is known about ops by name: where functions of one operand end, and how ops treat what they are given.

A limit is where a function, or its derivative, stops being finite, as a value of its operand. Those of exponentials and powers
depend on the format: exp overflows above ln(max), which is 88.72 in float32 and bfloat16 and 11.09 in float16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import acosh, asinh, inf, log, log2, log10
from typing import Any, Literal

from stabdiag.trace.formats import FORMATS, Format

# fmt: off
DISCRETE = frozenset((
    "topk", "argmax", "argmin", "sort", "argsort", "ge", "gt", "le", "lt", "eq", "ne", "bucketize", "searchsorted",
    "multinomial",
))
"""Ops that choose: their integer results differ entirely or not at all, and end a comparison of precisions."""

FRESH = frozenset((
    "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like", "empty_like", "new_zeros",
    "new_ones", "new_full", "new_empty", "zero", "fill", "uniform", "normal", "random", "exponential", "bernoulli",
))
"""Results that hold nothing of what their arguments hold."""

PRODUCTS = frozenset((
    "mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "dot", "convolution", "_convolution", "mkldnn_convolution",
    "linear", "_grouped_mm",
))
"""Products with a matrix: a trained weight brings their results to any size and sign, whatever went in."""

LAYERS = frozenset((
    "embedding", "_embedding_bag", "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm",
    "native_dropout", "_batch_norm_with_update", "batch_norm_with_update", "cudnn_convolution", "lstm", "gru",
    "mkldnn_rnn_layer", "_thnn_fused_lstm_cell",
))
"""Whole layers as one op."""

AFFINE_NORMALISATIONS = frozenset(("native_layer_norm", "native_group_norm", "_fused_rms_norm"))
"""Normalisations that may carry trained weights of their own."""

LOOKUPS = frozenset(("index", "index_select", "gather"))
"""Choose entries of their first argument at places that the others name."""

SUMS = frozenset(("sum", "mean", "cumsum", "index_add", "scatter_add", "scatter_reduce"))
"""Add up many elements."""

LINEAR = SUMS | frozenset((
    "add", "sub", "rsub", "mul", "div", "neg", "gather", "index", "index_select", "masked_select",
    "where", "masked_fill", "cat", "stack", "select", "clamp", "clamp_min", "clamp_max", "maximum", "minimum", "max",
    "amax", "min", "amin", "nan_to_num", "take", "take_along_dim", "index_put", "scatter", "topk", "sort",
    "_unsafe_index", "_unsafe_masked_index",
))
"""Ops that select, sum, average or scale what they are given: what is inside stays recognisable."""

SOFTMAXES = frozenset(("_softmax", "_safe_softmax"))
SELECTIONS = frozenset(("where", "masked_fill"))
LOGARITHMS = frozenset(("log", "log2", "log10", "log1p"))
EXPONENTIALS = frozenset(("exp", "exp2", "expm1", "sinh", "cosh"))
INVERSES = frozenset(("acos", "asin", "acosh", "atanh", "logit", "special_logit", "erfinv", "special_erfinv"))
RECIPROCALS = frozenset(("reciprocal", "rsqrt"))
EVEN = frozenset(("abs", "square"))
"""Fold the line at 0: what they are given can pass through 0, what they give only touches it."""
# fmt: on


def base_name(name: str) -> str:
    """An op's name without the mark of its in-place form: "exp_" is "exp"; "_softmax" stays."""
    return name.rstrip("_")


Side = Literal["below", "above", "at"]


@dataclass(frozen=True, slots=True)
class Limit:
    """Where a function of one operand ends.

    Attributes:
        at: the operand's value.
        side: "below": it is not finite from there down; "above": from there up; "at": only there.
        kind: what is not finite, "value" or "gradient"; a value that is not finite has no finite gradient either.
    """

    at: float
    side: Side
    kind: Literal["value", "gradient"]


_INSIDE_ONE = (Limit(1.0, "above", "gradient"), Limit(-1.0, "below", "gradient"))
_POLES_AT_ONE = (Limit(1.0, "above", "value"), Limit(-1.0, "below", "value"))
_UNIT_INTERVAL = (Limit(0.0, "below", "value"), Limit(1.0, "above", "value"))
_FIXED: dict[str, tuple[Limit, ...]] = {
    "log": (Limit(0.0, "below", "value"),),
    "log2": (Limit(0.0, "below", "value"),),
    "log10": (Limit(0.0, "below", "value"),),
    "log1p": (Limit(-1.0, "below", "value"),),
    "sqrt": (Limit(0.0, "below", "gradient"),),
    "rsqrt": (Limit(0.0, "below", "value"),),
    "div": (Limit(0.0, "at", "value"),),
    "reciprocal": (Limit(0.0, "at", "value"),),
    "acos": _INSIDE_ONE,
    "asin": _INSIDE_ONE,
    "acosh": (Limit(1.0, "below", "gradient"),),
    "atanh": _POLES_AT_ONE,
    "erfinv": _POLES_AT_ONE,
    "special_erfinv": _POLES_AT_ONE,
    "logit": _UNIT_INTERVAL,
    "special_logit": _UNIT_INTERVAL,
}


def limits(name: str, attributes: Mapping[str, Any], format: Format) -> tuple[Limit, ...]:
    """Where an op ends in a format, in terms of its operand: of a quotient the divisor, of a power what is not a number.

    Args:
        name: aten name, in-place or not.
        attributes: the op's arguments that are no tensors; powers need their "exponent" or their base ("self").
        format: whose largest number ends an exponential.

    Returns:
        Nothing for ops without a limit. Where only the gradient is infinite at the point itself (sqrt at 0, acos at ±1)
        the value is not a number beyond it.
    """
    name, largest = base_name(name), format.max
    if (fixed := _FIXED.get(name)) is not None:
        return fixed
    if name in ("exp", "expm1"):
        return (Limit(log(largest), "above", "value"),)
    if name == "exp2":
        return (Limit(log2(largest), "above", "value"),)
    if name == "cosh":
        return (Limit(acosh(largest), "above", "value"), Limit(-acosh(largest), "below", "value"))
    if name == "sinh":
        return (Limit(asinh(largest), "above", "value"), Limit(-asinh(largest), "below", "value"))
    if name == "square":
        return _power(2.0, largest)
    if name == "pow":
        if (base := attributes.get("self")) is not None:
            return (_exponent_limit(float(base), largest),) if base > 0 and base != 1 else ()
        exponent = attributes.get("exponent")
        return _power(float(exponent), largest) if isinstance(exponent, (int, float)) else ()
    return ()


def _exponent_limit(base: float, largest: float) -> Limit:
    at = log10(largest) / log10(base)
    return Limit(at, "above" if at > 0 else "below", "value")


def _power(exponent: float, largest: float) -> tuple[Limit, ...]:
    whole = exponent == int(exponent) if abs(exponent) < inf else True
    if exponent < 0:
        return (Limit(0.0, "at" if whole else "below", "value"),)
    if 0 < exponent < 1:
        return (Limit(0.0, "below", "gradient"),)
    end = largest ** (1 / exponent) if exponent > 1 else inf
    beyond = (Limit(end, "above", "value"),) if end < inf else ()
    if whole:
        return (*beyond, *(Limit(-m.at, "below", "value") for m in beyond))
    return (*beyond, Limit(0.0, "below", "value"))


def singular_at(name: str, attributes: Mapping[str, Any], point: float) -> bool:
    """Whether an op's value or derivative ends at a point of its operand, or at its mirror image."""
    return any(abs(end.at) == point for end in limits(name, attributes, FORMATS["float64"]))


def exponent(attributes: Mapping[str, Any]) -> float:
    """The number that a power is raised to; NaN where it is a tensor."""
    found = attributes.get("exponent")
    return float(found) if isinstance(found, (int, float)) else float("nan")
