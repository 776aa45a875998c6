"""How far the inputs can drive values inside the model: a few steps of gradient ascent on the floating-point inputs.

The gradient that enters the model is not the loss's. A pre-hook at the autograd node that made a watched value replaces it by
the direction in which the value's spread grows, so one backward pass of the model as it is drives all watched values at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from stabdiag.probe.guest import seed_everything
from stabdiag.probe.recorder import SEED, Recorder, Stage, named_tensors
from stabdiag.recording.eager import EagerMode
from stabdiag.recording.operator import operator
from stabdiag.recording.torch_private import last_node, number_of, tree_leaves
from stabdiag.recording.tracer import Execute, plain
from stabdiag.recording.unfused import unfused_recurrence
from stabdiag.subject.subject import Inputs
from stabdiag.trace import Run

STEPS = 3
COST = 3 * STEPS + 1  # forward passes: backward counts twice forward


class _Watch(EagerMode):
    """Keeps the results of some ops and the sequence numbers of the autograd nodes that made them."""

    def __init__(self, run: Run, wanted: Iterable[int], execute: Execute) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values: dict[int, Tensor] = {}
        self.nodes: dict[int, tuple[int, int]] = {}  # sequence number -> value id, output of the node
        self._run, self._wanted, self._execute, self._index = run, set(wanted), execute, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        info = operator(func)
        result = self._execute(func, info, args, kwargs or {}) if info.traced else func(*args, **(kwargs or {}))
        if info.traced:
            op = self._run.ops[self._index]
            self._index += 1
            made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
            for slot, (value_id, tensor) in enumerate(zip(op.outputs, made, strict=False)):
                if value_id in self._wanted:
                    self.values[value_id] = tensor.detach()
                    self.nodes.setdefault(last_node(), (value_id, slot))
        return result


def driven(recorder: Recorder, base: Run, watched: Iterable[int]) -> dict[int, Tensor]:
    """The watched values after `STEPS` steps, each as long as the input's root mean square; {} when no input has a gradient."""
    watched = set(watched)
    replay = recorder.replays.get((0, 0, 0))
    with recorder.stage("float32") as stage:
        inputs = recorder.inputs(stage, 0)
        leaves = [t.requires_grad_() for _, t in named_tensors(inputs) if t.is_floating_point()]
        found: dict[int, Tensor] = {}
        for step in range(STEPS + 1 if leaves else 0):
            watch = _Watch(base, watched, plain if replay is None else replay.replaying(plain))
            loss = _forward(recorder, stage, inputs, watch)
            if not all(bool(torch.isfinite(v).all()) for v in watch.values.values()):
                break
            found = watch.values
            if step == STEPS or not loss.requires_grad:
                break
            directions = _directions(loss, watch, leaves)
            if not any(d is not None and bool(torch.isfinite(d).all()) and bool(d.any()) for d in directions):
                return found if step else {}
            with torch.no_grad():
                for leaf, direction in zip(leaves, directions, strict=True):
                    if direction is not None and bool(direction.any()) and bool(torch.isfinite(direction).all()):
                        leaf += direction * (leaf.square().mean().sqrt() / direction.square().mean().sqrt())
        return found


def _forward(recorder: Recorder, stage: Stage, inputs: Inputs, watch: _Watch) -> Tensor:
    seed_everything(SEED)
    with torch.enable_grad(), unfused_recurrence(), watch, stage.precision.context(stage.device.type):
        return recorder.subject.objective(stage.model, inputs)


def _directions(loss: Tensor, watch: _Watch, leaves: list[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradient of the spread of all watched values, each of them weighing the same, with respect to the inputs."""
    stack, seen = [loss.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (at := watch.nodes.get(number_of(node))) is not None:
            node.register_prehook(_replacement(watch.values[at[0]], at[1]))
        stack.extend(following for following, _ in node.next_functions)
    return torch.autograd.grad(loss, leaves, torch.zeros_like(loss), allow_unused=True)


def _replacement(value: Tensor, slot: int) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    away = value - value.mean()
    away = away / away.norm().clamp(min=1e-30)

    def replace(gradients: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*gradients[:slot], away, *gradients[slot + 1 :])

    return replace
