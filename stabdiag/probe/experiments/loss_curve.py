"""The loss curve: how far the loss falls over some optimizer steps in float32, for fixes that change the function by design.

Writes `trace.experiments.loss_curve`: the losses before each of `request.descent` steps and after the last. It ends
early at the first loss or gradient that is not finite, which is then its last element.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, nan

from stabdiag.probe.optimizer import choose
from stabdiag.probe.recorder import Recorder
from stabdiag.probe.training import Trainer
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Trace


def run(recorder: Recorder, trace: Trace, request: ScanRequest, progress: Callable[[str, float], None]) -> None:
    """Take the steps on the first batch, with the optimizer that is there."""
    base = trace.run("float32")
    if request.descent <= 0 or base is None or base.loss is None:
        return
    progress("loss curve", 0.97)
    losses: list[float] = []
    with recorder.stage("float32") as stage:
        trainer = Trainer(recorder, stage, choose(recorder.subject, stage.model, request), clip=request.clip)
        for _ in range(request.descent + 1):
            done = trainer.step()
            losses.append(done.loss if done.broke in ("", "loss") else nan)
            if not isfinite(losses[-1]):
                break
    trace.experiments.loss_curve = losses
