"""Loss scaling: the power of two that lifts gradients out of the underflow of float16 without overflowing it."""

from __future__ import annotations

from math import floor, log2

from stabdiag.trace import Run, Stats, Trace, merged
from stabdiag.trace.formats import Format, format_of

HEADROOM_BITS = 3  # the largest gradient stays a factor 8 below the format's maximum
FIRST_SCALE = 2.0**16  # what torch.amp.GradScaler starts from
LOST_WORTH_SCALING = 0.01  # share of gradients flushed to 0 from which on a scale is worth having


def largest_gradient(run: Run) -> float:
    """Largest finite magnitude among the gradients of all values and parameters, unscaled."""
    of_values = max((v.gradient.max_abs for v in run.values if v.gradient is not None), default=0.0) / run.loss_scale
    return max(of_values, max((p.gradient.max_abs for p in run.parameters if p.gradient is not None), default=0.0))


def safe_scale(run: Run, format: Format, limit: float = 2.0**24) -> float:
    """S* = the largest power of two with max|S·g| ≤ max/8, at least 1 and at most `limit`."""
    largest = largest_gradient(run)
    if not largest:
        return 1.0
    exponent = max(0.0, floor(log2(format.max / largest)) - HEADROOM_BITS)
    return float(2.0 ** min(exponent, log2(limit)))


def largest_tensor_gradient(base: Run, run: Run) -> float:
    """Largest gradient of a parameter, or of a value with more than one element where the 16-bit `run` holds it in 16 bits.

    Scalars are the loss and its terms, which autocast and every sensible float16 loop keep in float32.
    """
    half = {op.site for op in run.phase("forward", "loss") if (v := run.output_of(op)) is not None and v.dtype == "float16"}
    largest = max((p.gradient.max_abs for p in base.parameters if p.gradient is not None), default=0.0)
    for op in base.phase("forward", "loss"):
        value = base.output_of(op)
        if value is not None and value.gradient is not None and value.gradient.count > 1 and op.site in half:
            largest = max(largest, value.gradient.max_abs / base.loss_scale)
    return largest


def scale_of_tensors(run: Run, format: Format) -> float:
    """S* over the gradients of parameters and of values with more than one element, at least 1 and at most 2^24."""
    of_values = (v.gradient.max_abs / run.loss_scale for v in run.values if v.gradient is not None and v.gradient.count > 1)
    largest = max(max(of_values, default=0.0), max((p.gradient.max_abs for p in run.parameters if p.gradient), default=0.0))
    return float(2.0 ** min(24.0, max(0.0, floor(log2(format.max / largest)) - HEADROOM_BITS))) if largest else 1.0


def parameter_gradients(run: Run) -> Stats | None:
    """The distribution of all parameter gradients together."""
    return merged(p.gradient for p in run.parameters)


def recommended_scale(trace: Trace, precision: str) -> float:
    """The loss scale to run a precision with: S* for float16, 1 elsewhere.

    Where the model itself is float16 the loss is too, and its gradient starts as a float16 number: 2^15 is the most it holds.
    """
    format = format_of(precision)
    base = trace.base
    if format.name != "float16" or base is None:
        return 1.0
    return safe_scale(base, format, limit=2.0**24 if precision.startswith("amp-") else 2.0**15)
