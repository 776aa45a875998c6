"""Does the first optimizer step leave finite weights, in every precision in which weights are stored?

In float32 the two-time test has taken the steps; in 16 bits they are taken here, where the author's own weights are of that
format or the request names it. Where weights are not finite after a step, it is taken again and recorded op by op. A step that
raises tells nothing about its numbers.

Writes `trace.experiments.stored_weights`, precision -> `{"precision", "taken" (steps, the last of which broke), "birth"
(`stabdiag.probe.birth`), "own" (whether the author stores weights so)}`; nothing where all stays finite.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from math import isfinite
from typing import Any

from stabdiag.probe.birth import birth
from stabdiag.probe.optimizer import choose
from stabdiag.probe.precision import precision
from stabdiag.probe.recorder import Recorder, Stage
from stabdiag.probe.training import Trainer
from stabdiag.settings.request import DEFAULT_PRECISIONS, ScanRequest
from stabdiag.trace import Trace

STEPS = 2


def run(recorder: Recorder, trace: Trace, request: ScanRequest, progress: Callable[[str, float], None]) -> None:
    """Take the first steps of every precision that weights are stored in."""
    first = trace.experiments.first_steps
    if not first:
        return
    found: dict[str, dict[str, Any]] = {}
    own = {p.dtype for p in recorder.subject.model.parameters() if p.requires_grad}
    for name in ("float32", "float16", "bfloat16"):
        before = trace.run(name)
        if before is None or before.error is not None or before.loss is None or not isfinite(before.loss):
            continue
        stored = precision(name).cast in own
        if name == "float32":
            broke = [k for k, step in enumerate(first["steps"], 1) if step["broke"] == "parameters"]
            taken = broke[0] if broke else 0
        elif stored or request.precisions != list(DEFAULT_PRECISIONS):
            taken = _broken_after(recorder, name, request)
            trace.spent["stored weights"] = trace.spent.get("stored weights", 0.0) + STEPS
        else:
            continue
        if taken:
            with recorder.stage(name) as stage:
                trainer = _trainer(recorder, stage, request)
                for _ in range(taken - 1):
                    trainer.step()
                found[name] = {"precision": name, "taken": taken, "birth": birth(trainer, trace, taken - 1), "own": stored}
    if found:
        trace.experiments.stored_weights = found


def _broken_after(recorder: Recorder, name: str, request: ScanRequest) -> int:
    """After which step the weights are not finite; 0 when they stay so."""
    with recorder.stage(name) as stage, suppress(Exception):
        trainer = _trainer(recorder, stage, request)
        for taken in range(1, STEPS + 1):
            broke = trainer.step().broke
            if broke:
                return taken if broke == "parameters" else 0
    return 0


def _trainer(recorder: Recorder, stage: Stage, request: ScanRequest) -> Trainer:
    chosen = choose(recorder.subject, stage.model, request)
    return Trainer(recorder, stage, chosen, request.clip, request.clip_value, request.warm_up, scale=request.loss_scale or 1.0)
