"""Whether an edited model computes what the original did: outputs, loss and every parameter gradient of the reference run.

Each output, the loss and each parameter's gradient is compared relative to its own size, over the elements at which the
original is finite. What cannot be compared is not equal: another number of outputs, or outputs that are all 0, prove nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

from stabdiag.judging.report import Samples
from stabdiag.repair.outcome import Reason, Refused

AGREEMENT = 1e-3
"""Largest relative difference of a function that is kept. The reference run has 53 bits, so that a stable form and what it
replaces differ by rounding only; the rest is room for epsilons, which lie a thousand times below what they are added to
(`stabdiag.repair.margins`)."""
ROUNDING = {"float64": 1e-10, "float32": 1e-2}
"""A gradient this much smaller than that of all parameters together is 0 but for rounding (a bias in front of a softmax): a
million units of roundoff in a float64 reference; where float32 is all there is, a hundredth, of which AGREEMENT is 160."""


@dataclass(frozen=True)
class Agreement:
    """The largest relative difference of what was compared; logits: the outputs differ, loss and gradients do not."""

    difference: float
    logits: bool = False


def agreement(before: Samples, after: Samples, *, moved: bool = False) -> Agreement | Refused | None:
    """How well two models agree; None where nothing of the original is finite that the edit does not move.

    Args:
        before, after: of the original and the edited model.
        moved: the edit changes what the model returns together with the loss that takes it, so that outputs need not agree.
    """
    loss = _loss(before, after)
    gradients = _gradients(before, after) if loss is not None else None  # of a loss that is none they mean nothing
    outputs = _outputs(before, after)
    if isinstance(outputs, Refused) or (outputs or 0.0) > AGREEMENT:
        if moved and loss is not None and not isinstance(gradients, Refused) and gradients is not None:
            if loss <= AGREEMENT:
                return Agreement(max(loss, gradients), logits=True)
            return Refused(Reason.LOSS_DIFFERS, difference=loss)
        if moved and loss is None:
            return None
        return outputs if isinstance(outputs, Refused) else Refused(Reason.OUTPUTS_DIFFER, difference=outputs)
    if loss is not None and loss > AGREEMENT:
        return Refused(Reason.LOSS_DIFFERS, difference=loss)
    if isinstance(gradients, Refused):
        return gradients
    known = [d for d in (outputs, loss, gradients) if d is not None]
    return Agreement(max(known)) if known else None


def _outputs(before: Samples, after: Samples) -> float | Refused | None:
    if [len(values) for values in before.outputs] != [len(values) for values in after.outputs] or not before.outputs:
        return Refused(Reason.NOT_COMPARABLE, "the outputs")
    differences = [_relative(b, a) for b, a in zip(before.outputs, after.outputs, strict=True)]
    if any(d is None and any(isfinite(x) for x in b) for d, b in zip(differences, before.outputs, strict=True)):
        return Refused(Reason.NOT_COMPARABLE, "outputs that are all 0")
    return max((d for d in differences if d is not None), default=None)


def _loss(before: Samples, after: Samples) -> float | None:
    """None where the original loss is not finite; inf where only the edited one is not."""
    if before.loss is None or not isfinite(before.loss):
        return None
    if after.loss is None or not isfinite(after.loss):
        return float("inf")
    if before.loss == 0.0:
        return 0.0 if after.loss == 0.0 else float("inf")
    return abs(after.loss - before.loss) / abs(before.loss)


def _gradients(before: Samples, after: Samples) -> float | Refused | None:
    norms = {name: norm for name, norm in before.norms.items() if isfinite(norm)}
    if before.gradients.keys() != after.gradients.keys():
        other = sorted(before.gradients.keys() ^ after.gradients.keys())[0]
        return Refused(Reason.NOT_COMPARABLE, f"the gradient of {other}")
    size = sqrt(sum(norm**2 for norm in norms.values()))
    if norms and size == 0.0:
        return Refused(Reason.NOT_COMPARABLE, "gradients that are all 0")
    floor = ROUNDING.get(before.precision, 0.0) * size
    worst: float | None = None
    for name, values in before.gradients.items():
        difference = _relative(values, after.gradients[name], floor)
        if name in norms and isfinite(after_norm := after.norms.get(name, float("inf"))):
            of_norm = abs(after_norm - norms[name]) / max(norms[name], floor)
            difference = max(difference or 0.0, of_norm)
        elif name in norms:
            difference = float("inf")
        if difference is not None and difference > AGREEMENT:
            return Refused(Reason.GRADIENTS_DIFFER, name, difference=difference)
        worst = difference if worst is None else max(worst, difference or 0.0)
    return worst


def _relative(before: list[float], after: list[float], floor: float = 0.0) -> float | None:
    """L2 distance over L2 norm of what is finite in the original; None where that is nothing or 0, inf where the other one is
    not finite there.

    Args:
        floor: sizes below it count as it.
    """
    pairs = [(b, a) for b, a in zip(before, after, strict=True) if isfinite(b)]
    size = max(sqrt(sum(b * b for b, _ in pairs)), floor)
    if not pairs or size == 0.0:
        return None
    if not all(isfinite(a) for _, a in pairs):
        return float("inf")
    return sqrt(sum((a - b) ** 2 for b, a in pairs)) / size
