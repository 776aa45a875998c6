"""Where an expression ends in a format, in terms of the value that its author would look at."""

from __future__ import annotations

from collections.abc import Iterable
from math import log

from stabdiag.evidence.expressions.forms import (
    LOG_OF_SIGMOID,
    LOG_OF_SOFTMAX,
    LOGSUMEXP_BY_HAND,
    ROOT_OF_EXP,
    SOFTMAX_BY_HAND,
    Expression,
)
from stabdiag.trace import Run
from stabdiag.trace.formats import Format, format_of
from stabdiag.trace.ops import Limit, limits


def limits_of(run: Run, expression: Expression, format: Format) -> tuple[Limit, ...]:
    """Where the expression stops being finite, in terms of its link: of a logarithm of a softmax the spread of the logits.

    exp(-g) rounds to 0 below half the smallest number; the derivative 1/p of a logarithm overflows where p is below 1/max;
    1 - sigmoid(z) is 0 where exp(-z) is below half the spacing of the numbers below 1 (float32 rounds 1 + exp(-z) itself).
    """
    vanishes, overflows = -log(format.smallest / 2), log(format.max)
    if expression.form == LOG_OF_SOFTMAX:
        return Limit(vanishes, "above", "value"), Limit(min(overflows, vanishes), "above", "gradient")
    if expression.form == LOG_OF_SIGMOID:
        cause = None if expression.cause is None else run.ops[expression.cause]
        up = expression.complement is (cause is not None and cause.name == "sigmoid")
        at = (format.digits + (format.digits < 24)) * log(2) if expression.complement else overflows
        return (Limit(at, "above", "value") if up else Limit(-at, "below", "value"),)
    danger = run.ops[expression.danger]
    found = limits(danger.name, danger.attributes, format)
    if expression.form in (ROOT_OF_EXP, SOFTMAX_BY_HAND, LOGSUMEXP_BY_HAND):
        found = (*found, Limit(-vanishes, "below", "gradient" if expression.form == ROOT_OF_EXP else "value"))
    return found


def breaking_points(run: Run, expression: Expression, formats: Iterable[str], kinds: Iterable[str] = ()) -> str:
    """The limits in words, formats that share them together: "above 88.7 in float32 and bfloat16, above 11.1 in float16"."""
    places: dict[str, list[str]] = {}
    for name in formats:
        found = limits_of(run, expression, format_of(name))
        wanted = [limit for limit in found if limit.kind in kinds] or list(found)
        both = len({limit.kind for limit in wanted}) > 1
        text = " and ".join(dict.fromkeys(_words(limit, both) for limit in wanted))
        if text:
            places.setdefault(text, []).append(name)
    if len(places) == 1 and "float32" in next(iter(places.values())):
        text, names = next(iter(places.items()))
        constant = all(
            limits_of(run, expression, format_of(n)) == limits_of(run, expression, format_of("float16")) for n in names
        )
        if constant:  # a pole is where it is, whatever the format
            return text
    return ", ".join(f"{text} in {' and '.join(names)}" for text, names in places.items())


def _words(limit: Limit, both: bool) -> str:
    if limit.side == "at" or (limit.kind == "gradient" and not both):
        return f"at {limit.at:.3g}" + ("" if limit.kind == "value" else ", where the gradient is infinite")
    return f"from {limit.at:.3g} {'up' if limit.side == 'above' else 'down'}" + (f" ({limit.kind})" if both else "")
