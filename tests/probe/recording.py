"""Record a small model in the tests' own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stabdiag.probe.recorder import Recorder
from stabdiag.recording.reference import Reference
from stabdiag.subject.subject import Inputs, Subject
from stabdiag.trace import Run, SubjectFacts


def subject_of(model: nn.Module, *args: Any, loss: Callable[[Any], Tensor] | None = None) -> Subject:
    """A subject with fixed positional inputs; the loss is the mean square of the output unless another is given."""
    goal = loss or (lambda out: out.float().square().mean() if out.dtype != torch.float64 else out.square().mean())
    return Subject(model, lambda k: Inputs(args), lambda out, _: goal(out), SubjectFacts("model.py", "Net", 0, "", ""))


def record(model: nn.Module, *args: Any, precision: str = "float32", loss: Callable[[Any], Tensor] | None = None) -> Run:
    """One recorded step."""
    recorder = Recorder(subject_of(model, *args, loss=loss), torch.device("cpu"))
    with recorder.stage(precision) as stage:
        return recorder.record(stage)


def compared(model: nn.Module, *args: Any, precision: str, loss: Callable[[Any], Tensor] | None = None) -> Run:
    """One recorded step with errors against float64."""
    recorder = Recorder(subject_of(model, *args, loss=loss), torch.device("cpu"))
    reference = Reference()
    with recorder.stage("float64") as stage:
        recorder.record(stage, keep=reference)
    with recorder.stage(precision) as stage:
        return recorder.record(stage, against=reference)


def names(run: Run, *phases: str) -> list[str]:
    """Names of the ops of some phases."""
    return [op.name for op in run.phase(*phases)]
