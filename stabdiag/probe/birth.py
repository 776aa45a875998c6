"""Where a training step goes wrong: the step recorded op by op, and the first op that makes a NaN or Inf of finite inputs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from stabdiag.probe.training import Trainer
from stabdiag.recording import torch_private
from stabdiag.recording.tracer import Tracer, plain
from stabdiag.trace import Op, Run, Trace


def birth(trainer: Trainer, trace: Trace, step: int) -> dict[str, Any] | None:
    """Record the trainer's next step in full: forward, loss, backward, then the optimizer's ops.

    Returns:
        None when everything was finite. Else step, phase, op, module, layer, location (as a dict; the line that ran the op),
        scale, inputs (min and max of each measured input), kind ("nan" or "inf"), nonfinite and count (elements).
    """
    stage, recorder = trainer.stage, trainer.recorder
    trainer.chosen.zero_grad(stage.model)
    run = recorder.record(stage, step=step, scale=trainer.scale, measure=False, keep_gradients=True)
    expected = {op.site for wide in _wide(trace) for op in wide.ops if _broken(wide, op)}
    op = _first(run, expected)
    if op is None:
        gradients = [p.grad for p in trainer.chosen.parameters if p.grad is not None]
        with torch.no_grad():
            torch_private.scale_(gradients, 1.0 / trainer.scale)
        if trainer.clip is not None:
            torch.nn.utils.clip_grad_norm_(trainer.chosen.parameters, trainer.clip)
        run = _optimizer_step(trainer, run)
        op = _first(run, set())
    trainer.chosen.zero_grad(stage.model)
    return None if op is None else _described(run, op, step, trainer.scale)


def _wide(trace: Trace) -> list[Run]:
    """The model as built in float64 and float32: an infinity that is there too (a mask) is meant."""
    return [run for name in ("float64", "float32") if (run := trace.run(name)) is not None and run.error is None]


def _optimizer_step(trainer: Trainer, before: Run) -> Run:
    stage = trainer.stage
    run = Run(stage.precision.name, mode=stage.mode, step=before.step, loss_scale=trainer.scale)
    tracer = Tracer(stage.model, run, execute=plain)
    tracer.phase = "step"
    for name, parameter in stage.model.named_parameters():
        if parameter.grad is not None:
            tracer.leaf(parameter.grad, "constant", f"{name}.grad")
    with tracer:
        trainer.chosen.step()
    return run


def _first(run: Run, expected: set[tuple[Any, ...]]) -> Op | None:
    """The first op that makes a NaN or an infinity from finite inputs, where a step that went well made none."""
    computing = (op for op in run.ops if (not op.view or op.name == "_to_copy") and op.site not in expected)
    return next((op for op in computing if _broken(run, op) and _sound(run, op)), None)


def _broken(run: Run, op: Op) -> bool:
    return any(s.nonfinite for i in op.outputs if (s := run.values[i].stats) is not None)


def _sound(run: Run, op: Op) -> bool:
    return not any(s.nonfinite for i in op.inputs if (s := run.values[i].stats) is not None)


def _described(run: Run, op: Op, step: int, scale: float) -> dict[str, Any]:
    stats = next(s for i in op.outputs if (s := run.values[i].stats) is not None and s.nonfinite)
    measured = [s for v in run.inputs_of(op) if (s := v.stats) is not None]
    return {
        "step": step,
        "phase": op.phase,
        "op": op.name,
        "module": op.module,
        "layer": op.layer,
        "location": asdict(op.location) if op.location is not None else None,
        "scale": scale,
        "inputs": [[s.min, s.max] for s in measured],
        "kind": "nan" if stats.nan else "inf",
        "nonfinite": stats.nonfinite,
        "count": stats.count,
    }
