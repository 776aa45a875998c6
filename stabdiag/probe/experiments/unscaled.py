"""What a float16 backward pass loses without loss scaling, measured by running it, at the start and after two optimizer steps.

Statistics of parameter gradients alone do not tell: a gradient that is flushed to zero at the loss never reaches the parameters
whose own gradients would be large enough. Runs only where the float32 run shows gradients below the format's range.

With a loss scale in the request the loss is scaled by it, as a fix on trial asks for; what is not zero then is not lost.

Writes `trace.experiments.unscaled`: elements of the reference
gradient that are not zero, and the share of its energy (sum of squares) in elements that the format turned into zero.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import torch
from torch import Tensor

from stabdiag.probe.first_steps import advance
from stabdiag.probe.recorder import Recorder
from stabdiag.recording.reference import part
from stabdiag.trace import Run, Trace
from stabdiag.trace.experiments import Lost
from stabdiag.trace.formats import Format, format_of

LATER = 2
SUSPICIOUS = 0.05  # share of one gradient's energy below the format's range that makes the run worth its cost
LOST = 0.5  # share of its energy from which a parameter's gradient counts as lost
COST = 1.5  # bare training steps of one recorded step, float32 or emulated, as `plan._COST`


def run(recorder: Recorder, trace: Trace, request: Any, progress: Any) -> None:
    """Compare float16 gradients without scaling to those of the reference, after steps to float32 ones."""
    base = trace.run("float32")
    ran = [r.precision for r in trace.runs if format_of(r.precision).name == "float16" and r.error is None]
    wanted = list(dict.fromkeys(ran))
    if base is None or base.error is not None or not wanted or not _suspicious(base, format_of(wanted[0])):
        return
    assert recorder.reference is not None
    start = recorder.reference.gradients
    found = {name: {0: _lost(recorder, name, 0, {}, start, _scale(request, name))} for name in wanted}
    trace.experiments.unscaled = found
    trace.spent["unscaled"] = COST * len(wanted)
    # What arrives at the start is not lost at both times, and the later step is not worth its cost.
    wanted = [name for name in wanted if any(fact.lost > LOST for fact in found[name][0].values())]
    if not wanted:
        return
    with recorder.stage("float32") as stage:
        advance(recorder, stage, LATER, request)
        recorder.record(stage, step=LATER, measure=False, keep_gradients=True)
        named = dict(stage.model.named_parameters())
        reference = {n: part(p.grad) for n, p in named.items() if p.grad is not None}
        weights = {n: p.detach().clone() for n, p in named.items()}
        for name in wanted:
            found[name][LATER] = _lost(recorder, name, LATER, weights, reference, _scale(request, name))
    trace.spent["unscaled"] += LATER + COST * (1 + len(wanted))


def _suspicious(base: Run, format: Format) -> bool:
    gradients = [v.gradient for v in base.values] + [p.gradient for p in base.parameters]
    return any(
        g is not None and g.max_abs > 0 and g.energy_below(format.smallest / 2 / base.loss_scale) > SUSPICIOUS
        for g in gradients
    )


def _scale(request: Any, precision: str) -> float:
    """The loss scale in force; 2^15 is the largest that the float16 loss of a model cast to float16 can carry."""
    return min(request.loss_scale or 1.0, 2.0**15 if precision == "float16" else 2.0**24)


def _lost(
    recorder: Recorder,
    precision: str,
    step: int,
    weights: dict[str, Tensor],
    reference: dict[str, Tensor],
    scale: float,
) -> dict[str, Lost]:
    with recorder.stage(precision) as stage:
        with torch.no_grad():
            for name, parameter in stage.model.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])
        run = recorder.record(stage, step=step, scale=scale, measure=False, keep_gradients=True)
        if run.error is not None or run.loss is None or not isfinite(run.loss):
            return {}  # the forward pass is to blame
        parameters = dict(stage.model.named_parameters())
        lost = {}
        for name, expected in reference.items():
            energy, share = expected.square(), float((expected != 0).double().mean())
            total = float(energy.sum())
            if not share or not 0 < total < float("inf"):
                continue
            gradient = parameters[name].grad
            gone = float(energy[part(gradient) == 0].sum()) if gradient is not None else total
            lost[name] = Lost(round(share * parameters[name].numel()), gone / total)
    return lost
