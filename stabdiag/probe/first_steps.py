"""What the first optimizer steps do to the weights: how far each moves, and how much of that a 16-bit weight would not notice.

The steps are those of the two-time test, and the first takes the gradients that the recorded run left: this costs one bare
training step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stabdiag.probe.optimizer import Chosen, choose
from stabdiag.probe.recorder import Recorder, Stage, nonfinite_buffers
from stabdiag.probe.training import Trainer
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.frames import whole
from stabdiag.trace import Run

STORED = {"float16": torch.float16, "bfloat16": torch.bfloat16}
SAMPLE = 1 << 16  # weights looked at per tensor


def advance(recorder: Recorder, stage: Stage, steps: int, request: ScanRequest, recorded: Run | None = None) -> dict[str, Any]:
    """Take optimizer steps on batch 0; what is not finite stops them. `recorded` is a run that left its gradients on the stage.

    Returns:
        taken: optimizer steps that were taken; error: why it broke off, "" when nothing raised.
        optimizer: see `Chosen.facts`.
        steps: one dict of the fields of `training.Step` per step taken.
        promised: per step taken, by how much its gradient says the loss falls over the step, -g·Δw.
        poisoned_buffers: names of buffers that were finite before the steps and are not after them.
        parameters: per stepped tensor, over the steps and a fixed sample of its elements: `name`, `count` (elements), `shape`,
            `weight` and `update` (root mean square before the last step, and of the last step), `moving` (elements with a
            non-zero update), and for float16 and bfloat16 `lost` (how many of these updates round away when the weight is
            stored so), `lost_energy` and `energy` (sum of squares of the lost updates, of all).
    """
    chosen = choose(recorder.subject, stage.model, request)
    trainer = Trainer(recorder, stage, chosen, clip=request.clip, clip_value=request.clip_value, warm_up=request.warm_up)
    names = {id(p): name for name, p in stage.model.named_parameters()}
    found: dict[int, dict[str, Any]] = {}
    before = nonfinite_buffers(stage.model)
    taken, error = 0, ""
    promised: list[float] = []
    try:
        for step in range(steps):
            weights: list[Tensor] = []
            done = trainer.step(
                watch=lambda into=weights: into.extend(_sample(p) for p in chosen.parameters),  # type: ignore[misc]
                recorded=recorded if step == 0 else None,
            )
            if done.broke or not weights:
                break
            promised.append(_promised(chosen, weights))
            _compare(chosen, weights, names, found, request.stochastic_rounding)
            taken += 1
    except Exception as raised:
        error = whole(raised, 300)
    chosen.zero_grad(stage.model)
    return {
        "optimizer": chosen.facts,
        "taken": taken,
        "error": error,
        "steps": [{name: getattr(step, name) for name in step.__slots__} for step in trainer.steps],
        "promised": promised,
        "poisoned_buffers": sorted(nonfinite_buffers(stage.model) - before),
        "parameters": list(found.values()),
    }


def _sample(parameter: Tensor) -> Tensor:
    flat = parameter.detach().reshape(-1)
    return flat[:: 1 + (flat.numel() - 1) // SAMPLE].clone()


@torch.no_grad()
def _promised(chosen: Chosen, weights: list[Tensor]) -> float:
    total = 0.0
    for parameter, weight in zip(chosen.parameters, weights, strict=True):
        if parameter.grad is not None and not parameter.grad.is_sparse:
            gradient = _sample(parameter.grad).double()
            update = (_sample(parameter) - weight).double()
            total -= float((gradient * update).sum()) * parameter.numel() / max(1, weight.numel())
    return total


@torch.no_grad()
def _compare(
    chosen: Chosen, weights: list[Tensor], names: dict[int, str], found: dict[int, dict[str, Any]], at_random: bool
) -> None:
    growth = {id(p): chosen.build_up(group) for group in chosen.groups for p in group["params"]}
    for parameter, weight in zip(chosen.parameters, weights, strict=True):
        update = _sample(parameter) - weight
        moving = update != 0
        tally = found.setdefault(
            id(parameter),
            {"name": names.get(id(parameter), ""), "count": parameter.numel(), "shape": list(parameter.shape), "moving": 0}
            | {"lost": dict.fromkeys(STORED, 0), "lost_energy": dict.fromkeys(STORED, 0.0), "energy": 0.0},
        )
        tally["weight"], tally["update"] = _rms(weight), _rms(update)
        tally["growth"] = growth[id(parameter)]
        tally["moving"] += int(moving.sum())
        energy = update.double().square()
        tally["energy"] += float(energy.sum())
        for name, dtype in STORED.items():
            stored = weight.to(dtype)
            target = stored.double() + update.double() * growth[id(parameter)]
            moved = target if at_random else target.to(dtype).double()  # rounded at random, a weight is right on average
            lost = moving & (moved == stored.double())
            tally["lost"][name] += int(lost.sum())
            tally["lost_energy"][name] += float(energy[lost].sum())


def _rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt()) if values.numel() else 0.0
