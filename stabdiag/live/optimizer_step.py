"""The optimizer's own arithmetic: whether its step can break weights that had finite gradients, and where it did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stabdiag.live.culprit import Culprit, Kind
from stabdiag.recording.tracer import Tracer
from stabdiag.trace import Op, Run


def may_divide_by_zero(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its epsilon is 0, as written or in the format of the weights, or its class is not torch's own: only then
    are the weights looked at after each step, and kept before it."""
    if not type(optimizer).__module__.startswith("torch.optim"):
        return True
    for group in optimizer.param_groups:
        epsilon = group.get("eps")
        for parameter in group["params"] if isinstance(epsilon, float | int) else ():
            if float(torch.tensor(epsilon, dtype=parameter.dtype)) == 0.0:
                return True
    return False


def born(optimizer: torch.optim.Optimizer, root: nn.Module, before: Mapping[str, Tensor]) -> Culprit:
    """Take the step again op by op on weights as they were before it, and name the first op that makes something not finite.

    The weights and the optimizer's state are left as found.
    """
    own = dict(root.named_parameters())
    after = {name: p.detach().clone() for name, p in own.items()}
    state = {p: {k: v.clone() if isinstance(v, Tensor) else v for k, v in s.items()} for p, s in optimizer.state.items()}
    run = Run("float32")
    tracer = Tracer(root, run)
    tracer.phase = "step"
    step = type(optimizer).step
    try:
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(before[name])
            for entries in optimizer.state.values():
                _stepped_back(entries)
            with tracer:
                getattr(step, "__wrapped__", step)(optimizer)
        broken = next((n for n, p in own.items() if not bool(torch.isfinite(p).all())), "")
    finally:
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(after[name])
            for owner, entries in state.items():
                optimizer.state[owner] = entries
    op = next((op for op in run.ops if _broken(run, op) and not _inputs_broken(run, op)), None)
    group = optimizer.param_groups[0]
    epsilon = f", eps {group['eps']:g}" if isinstance(group.get("eps"), float | int) else ""
    name = type(optimizer).__name__
    where = f"`{op.name}` in the step of {name} (lr {group['lr']:g}{epsilon})" if op is not None else f"the step of {name}"
    evidence: dict[str, Any] = {"op": op.name if op is not None else "", "phase": "step"}
    evidence["module"] = broken.rpartition(".")[0]
    return Culprit(
        Kind.OPTIMIZER,
        f"this optimizer: gradients and weights are finite, {where} makes `{broken}` not finite; the step was undone",
        evidence,
    )


def _stepped_back(entries: dict[str, Any]) -> None:
    """A count of steps one lower: moments are those after the step, which divide by zero in the same places."""
    count = entries.get("step")
    if isinstance(count, Tensor):
        count.sub_(1)
    elif isinstance(count, int):
        entries["step"] = count - 1


def _broken(run: Run, op: Op) -> bool:
    return any(s.nonfinite for i in op.outputs if (s := run.values[i].stats) is not None)


def _inputs_broken(run: Run, op: Op) -> bool:
    return any(s.nonfinite for i in op.inputs if (s := run.values[i].stats) is not None)
