"""Whether steps along the gradients of doubtful precisions descend: tried in the reference, from the weights as they are.

The step is STEP of the length of the weights along the reference gradient, which is what one step of training moves them by
(SD806: median ratios from 1e-5 to 1e-1, 1e-3 in the middle), at the same rate for every gradient. Gradients and weights are
moved at the elements that were kept of them (`stabdiag.recording.reference.part`), which is a direction as good as any.

The noise between samples is measured on the same batch, since often there is no other: half of the samples, chosen at random,
have the sign of their loss reversed. The gradient that this gives has the covariance of the mean over the batch, and no mean.

Costs one forward pass for the reference and, where the loss follows its slope at all, one for every gradient that is off by
more than half, and a training step for the noise between samples where one descends.

Writes `trace.experiments.descent`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from stabdiag.evidence.numbers.descent import DESCENDS, Outcome, descent_of, in_doubt, relied_on
from stabdiag.probe.recorder import Recorder
from stabdiag.recording.reference import Reference, add_to_part, difference, part
from stabdiag.recording.torch_private import tree_map
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.subject import Inputs
from stabdiag.trace import Trace
from stabdiag.trace.counterpart import reference_of
from stabdiag.trace.experiments import DescentTried

STEP = 1e-3
FORWARD, TRAINING = 1.0, 2.5  # bare training steps, as `plan._COST`


def run(recorder: Recorder, trace: Trace, request: ScanRequest, progress: Callable[[str, float], None]) -> None:
    """Try the gradients that are in doubt."""
    reference = reference_of(trace)
    doubtful = [r for r in trace.runs if not r.step and not r.seed and r is not reference and in_doubt(r)]
    exact = recorder.reference.gradients if recorder.reference is not None else {}
    if not doubtful or reference is None or reference.loss is None or not isfinite(reference.loss) or not exact:
        return
    rate, square = _rate(recorder, exact)
    start = reference.loss

    def lowered(gradients: dict[str, Tensor]) -> float:
        after = _loss_after(recorder, reference.precision, {n: -rate * g for n, g in gradients.items() if n in exact})
        return float("-inf") if after is None or not isfinite(after) else start - after

    found = DescentTried(rate * square, lowered(exact))
    trace.experiments.descent, spent = found, FORWARD
    if relied_on(found):
        for r in doubtful:
            if (r.gradient_error or 0.0) >= DESCENDS and r.precision in recorder.doubtful:
                found.lowered[r.precision] = lowered(recorder.doubtful[r.precision])
                spent += FORWARD
        if any((of := descent_of(trace, r)) is not None and of.outcome is not Outcome.LOST for r in doubtful):
            found.sampling = _sampling(recorder, reference.precision, exact)
            spent += TRAINING
    trace.spent["descent"] = spent


def _rate(recorder: Recorder, gradients: dict[str, Tensor]) -> tuple[float, float]:
    """(the rate at which a step along the gradient has the length of a training step, square of the gradient's norm)."""
    weights = dict(recorder.subject.model.named_parameters())
    length = sum(float(part(weights[n]).square().sum()) for n in gradients) ** 0.5
    square = sum(float(g.square().sum()) for g in gradients.values())
    return (STEP * (length or 1.0) / square**0.5 if square else 0.0), square


def _loss_after(recorder: Recorder, precision: str, steps: dict[str, Tensor]) -> float | None:
    """The loss of batch 0 once the weights were moved; None where it cannot be computed there."""
    with recorder.stage(precision) as stage:
        with torch.no_grad():
            for name, weight in stage.model.named_parameters():
                if name in steps:
                    add_to_part(weight, steps[name])
        return recorder.forward(stage, recorder.inputs(stage, 0)).loss


def _sampling(recorder: Recorder, precision: str, exact: dict[str, Tensor]) -> float | None:
    """Norm of the gradient with half of the samples reversed, relative to the gradient; None where no sample can be told."""
    subject, reversed_at = recorder.subject, list[int]()

    def loss(output: Any, inputs: Inputs) -> Tensor:
        return subject.loss(tree_map(lambda leaf: _half_reversed(leaf, reversed_at), output), inputs)

    kept = Reference()
    apart = replace(recorder, subject=replace(subject, loss=loss), measurements=[])
    with recorder.stage(precision) as stage:
        broken = apart.record(stage, keep=kept, measure=False).error
    names = [n for n in exact if n in kept.gradients]
    if broken is not None or not reversed_at or not names:
        return None
    zeros = [torch.zeros_like(exact[n]) for n in names]
    size = sum(float(g.square().sum()) for g in exact.values()) ** 0.5
    return difference([kept.gradients[n] for n in names], zeros, size).error


def _half_reversed(leaf: Any, reversed_at: list[int]) -> Any:
    """An output as the loss sees it, whose gradient comes back with its sign reversed for half of the samples."""
    if not isinstance(leaf, Tensor) or not leaf.requires_grad or not any(n > 1 for n in leaf.shape):
        return leaf
    dim = next(d for d, n in enumerate(leaf.shape) if n > 1)
    order = torch.randperm(leaf.shape[dim], generator=torch.Generator().manual_seed(0)).to(leaf.device)
    signs = (1 - 2 * (order % 2)).to(leaf.dtype).reshape([-1 if d == dim else 1 for d in range(leaf.dim())])
    seen = leaf.view_as(leaf)

    def reverse(gradient: Tensor) -> Tensor:
        reversed_at.append(dim)
        return gradient * signs

    seen.register_hook(reverse)
    return seen
