"""Is a zero gradient zero by construction? Redraw the tensors in question, and only them, and look again.

A key bias before softmax, a head that the loss does not read, an expert without tokens or a recurrent weight at a single
step get no gradient whatever they hold. A weight behind or before dead units, or one zero among other zeros, gets one as
soon as all tensors in question hold something else. And a tensor that changes the loss without ever getting a gradient lies
behind an op that has none (sign, round, a comparison).

Writes `trace.experiments.zero_gradient`, for parameters whose
gradient is exactly zero in every recorded run.
"""

from __future__ import annotations

from math import isfinite, sqrt
from typing import Any

import torch
from torch import Tensor

from stabdiag.probe.guest import seed_everything
from stabdiag.probe.recorder import SEED, Recorder, Stage
from stabdiag.trace import Trace
from stabdiag.trace.experiments import ZeroGradient

DRAWS = (1.0, 3.0, 10.0)  # times the usual scale: what is flat around 0 may not be farther out
NOISE = {"float64": 1e-9, "float32": 1e-4}  # of the largest gradient: what remains of sums that cancel exactly


def in_question(trace: Trace) -> list[str]:
    """Parameters whose gradient is exactly zero in every finite float64 and float32 run, steps and seeds included."""
    runs = [r for r in trace.runs if r.precision in ("float64", "float32") and r.error is None]
    if not runs or any(r.loss is None or not isfinite(r.loss) for r in runs):
        return []
    zero: set[str] | None = None
    for run in runs:
        reached = [p for p in run.parameters if p.gradient is not None and not p.gradient.nonfinite]
        here = {p.name for p in reached if p.gradient is not None and not p.gradient.max_abs}
        zero = here if zero is None else zero & here
    order = [p.name for p in runs[0].parameters if p.gradient is not None and p.gradient.count]
    return [name for name in order if name in (zero or ())]


def run(recorder: Recorder, trace: Trace, request: Any, progress: Any) -> None:
    """Redraw and compare; nothing is written when no parameter is in question."""
    names = in_question(trace)
    if not names:
        return
    precision = "float64" if trace.run("float64") is not None else "float32"
    revived: set[str] = set()
    moves: set[str] = set()
    with recorder.stage(precision) as stage:
        before = step(recorder, stage)
        by_name = dict(stage.model.named_parameters())
        generator = torch.Generator().manual_seed(SEED)
        for scale in DRAWS:
            for name in names:
                by_name[name].data.copy_(scale * draw(by_name[name], generator))
            loss = step(recorder, stage)
            reached = [p.grad for p in by_name.values() if p.grad is not None and p.grad.numel()]
            largest = max((float(g.abs().max()) for g in reached), default=0.0)
            if loss is None or not isfinite(loss) or not isfinite(largest):
                continue
            gradients = {name: by_name[name].grad for name in names}
            found = {n for n, g in gradients.items() if g is not None and float(g.abs().max()) > NOISE[precision] * largest}
            revived |= found
            if not found and before is not None and abs(loss - before) > NOISE[precision] * max(abs(before), abs(loss)):
                moves |= _movers(recorder, stage, names, by_name, before, generator, NOISE[precision])
    trace.experiments.zero_gradient = {name: ZeroGradient(name in revived, name in moves) for name in names}


def _movers(
    recorder: Recorder,
    stage: Stage,
    names: list[str],
    by_name: dict[str, torch.nn.Parameter],
    before: float,
    generator: torch.Generator,
    noise: float,
) -> set[str]:
    """Which tensors change the loss when they alone change."""
    moving = set()
    here = step(recorder, stage)
    for name in names:
        kept = by_name[name].data.clone()
        by_name[name].data.copy_(draw(by_name[name], generator))
        loss = step(recorder, stage)
        by_name[name].data.copy_(kept)
        if loss is not None and here is not None and isfinite(loss) and abs(loss - here) > noise * max(abs(loss), abs(here)):
            moving.add(name)
    return moving


def draw(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """He-scaled weights, vectors around 0.5: values at which nothing is special."""
    noise = torch.randn(parameter.shape, generator=generator)
    if parameter.dim() < 2:
        return 0.5 + 0.5 * noise
    return noise * sqrt(2 / max(1, parameter[0].numel()))


def step(recorder: Recorder, stage: Stage) -> float | None:
    """A bare forward and backward pass on the first batch; the loss, None when it broke."""
    seed_everything(SEED)
    inputs = recorder.inputs(stage, 0)
    stage.model.zero_grad(set_to_none=True)
    try:
        with torch.enable_grad(), stage.precision.context(stage.device.type):
            loss = recorder.subject.objective(stage.model, inputs)
            loss.backward()
    except RuntimeError:
        return None
    return float(loss.detach())
