"""An epsilon that is zero in the format, so that it protects nothing.

## What it does
Finds constants added to, or bounding, an operand that is then divided by, rooted or taken the logarithm of, and that the
format of that op loses: below half its smallest number (2^-25 in float16: 1e-8 and 1e-12 are 0 there), or absorbed in a 1 (1
+ 1e-10 is 1 in float32, and so is the bound 1 - 1e-8 of a clamp). Confirmed in two ways: by running the model in that
precision with one element of the operand at zero (the loss must become non-finite, and stay finite in float32), and by pushing
what feeds the singular op until it breaks in that format. Epsilons of native normalisation kernels, which compute in float32,
are left alone. The optimizer's own epsilon is judged by the step that divides by 0, in the precisions that weights are stored
in: the author's, those asked for, and all of them with `--steps`.

Error: the run or a blank sample reaches the operand's end, or, in float32, values within `within` standard deviations do.
Warning: it is reached further out or by constants in float32; a bound that is 1 in 16 bits is reached within `within` of them.
Information: a forced zero only, or an epsilon that is 0 in 16 bits and keeps a logarithm from 0 in float32.

## Why it matters
x / (norm + 1e-8) is 0/0 in float16 for the first empty record, weeks into training.

## Bad
```python
import torch
from torch import nn


class Unit(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.head = nn.Linear(6, 8, bias=False), nn.Linear(8, 3)

    def forward(self, x):
        h = torch.relu(self.encode(x))
        h = h / (h.norm(dim=-1, keepdim=True) + 1e-8)  # expect: SD505
        return self.head(h)


def build_model():
    torch.manual_seed(0)
    return Unit()


def example_inputs():
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    x[2] = 0.0
    return (x,)


def loss(output):
    return output.square().mean()
```

## Good
```python
import torch
from torch import nn


class Unit(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.head = nn.Linear(6, 8, bias=False), nn.Linear(8, 3)

    def forward(self, x):
        h = torch.relu(self.encode(x))
        h = h / (h.norm(dim=-1, keepdim=True) + 1e-3)
        return self.head(h)


def build_model():
    torch.manual_seed(0)
    return Unit()


def example_inputs():
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    x[2] = 0.0
    return (x,)


def loss(output):
    return output.square().mean()
```

## What it does not detect
Epsilons inside opaque kernels, epsilons that are tensors, epsilons absorbed in a large activation.

## Thresholds
- `within` = 10: standard deviations over the samples, of what feeds the op, within which a break is near.

The limits are the format's smallest number and its unit roundoff. Constants above 1e-3 are not taken for epsilons
(`stabdiag.evidence.numbers.epsilon.LARGEST`).

## References
- IEEE 754-2019: the smallest positive float16 is 2^-24.
- PyTorch issue 66707 and huggingface/diffusers pull request 13316: epsilons that vanish in float16.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stabdiag.evidence.graph.main_path import downstream
from stabdiag.evidence.numbers.epsilon import Epsilon, bites, lost, reached
from stabdiag.evidence.signal import steps
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Run, Trace
from stabdiag.trace.formats import format_of

KIND = "expression"
LEVEL = "line"
BLOCKS = True
REMEDIES = (
    *("bce-with-logits", "epsilon-inside", "float32-island", "guarded-division", "guarded-log", "guarded-root"),
    *("larger-epsilon", "log-softmax", "logsigmoid", "module-epsilon", "optimizer-epsilon", "stable-form"),
)
explains = ("SD606", "SD608")


def check(trace: Trace, *, within: float = 10.0) -> Iterator[Finding]:
    """One finding per place and precision."""
    for run in trace.runs:
        if run.precision == "float64" or run.step or run.seed:
            continue
        seen: set[object] = set()
        for epsilon in lost(run):
            verdict = _verdict(trace, run, epsilon, within)
            at = trace.place(epsilon.op)
            line = epsilon.op.site if at is None else (at.path, at.line, at.column, at.library)
            if verdict is not None and line not in seen:
                seen.add(line)
                yield _finding(trace, run, epsilon, *verdict)
    yield from _of_the_optimizer(trace)


def _verdict(trace: Trace, run: Run, epsilon: Epsilon, within: float) -> tuple[Severity, str] | None:
    """How bad it is, and how that is known; None where nothing gets to what the epsilon guards against."""
    tried = trace.experiments.epsilon.get(run.precision, {}).get(epsilon.op.index)
    if bites(run, epsilon):
        return Severity.ERROR, "the run shows it"
    if tried is not None and tried.breaks and tried.reached:
        return Severity.ERROR, "a blank sample reaches it"
    format = format_of(run.values[epsilon.op.outputs[0]].dtype)
    if (severity := reached(trace, epsilon, format, within)) is not None:
        return severity, "other values of what feeds it reach it"
    return (Severity.INFO, "seen with a forced zero only") if tried is not None and tried.breaks else None


def _of_the_optimizer(trace: Trace) -> Iterator[Finding]:
    """An error only where both optimizer and precision were chosen: Adam as it comes breaks on float16 weights of any model."""
    facts = steps.optimizer(trace)
    for precision, runs in steps.broken(trace).items():
        broken = [run for run in runs if steps.epsilon_vanishes(run, facts)]
        if not broken:
            continue
        born = broken[0]["birth"]
        given = f"the epsilon {facts['eps']:g} of {steps.named(facts)} is 0 in {precision}" if facts["eps"] else ""
        given = given or f"{steps.named(facts)} has an epsilon of 0"
        yield Finding(
            _chosen(trace, facts, broken),
            f"{given}: where a gradient squares to 0, the step divides by 0, and the weights are not finite after step "
            f"{broken[0]['taken']}",
            module=born["layer"],
            op=born["op"],
            phase="step",
            precisions=[precision],
            location=steps.place(facts),
            label=f"{facts['eps']:g} is 0 in {precision}" if facts["eps"] else "divides by 0",
            evidence={"epsilon": facts["eps"], "birth": born},
            fixes=[
                Fix(
                    "float32-master-weights", f"keep weights and optimizer in float32 and compute in {precision} under autocast"
                ),
                Fix("larger-epsilon", f"give the optimizer an epsilon that {precision} can hold"),
            ],
        )


def _chosen(trace: Trace, facts: Mapping[str, Any], broken: list[dict[str, Any]]) -> Severity:
    """How much of what broke was chosen: the optimizer, and that weights are stored so."""
    wide = any(run["precision"] == "float32" for run in broken)
    own = any(run.get("own") for run in broken)
    asked = trace.experiments.training.get("precisions_chosen") or any("own" in run for run in broken)
    if steps.chosen(facts):
        return Severity.ERROR if wide or own or asked else Severity.INFO
    return Severity.WARNING if wide or own else Severity.INFO


def _finding(trace: Trace, run: Run, epsilon: Epsilon, severity: Severity, when: str) -> Finding:
    op = epsilon.op
    output = run.output_of(op)
    assert output is not None
    format = format_of(output.dtype)
    how = (
        f"absorbed in the 1 it is {'added to' if epsilon.value > 0 else 'taken from'} in {format.name}"
        if epsilon.absorbed
        else f"0 in {format.name}"
    )
    smallest = f"u = {format.unit_roundoff:.2g}" if epsilon.absorbed else f"smallest number {format.smallest:.2g}"
    return Finding(
        severity,
        f"the epsilon {abs(epsilon.value):.3g} is {how} ({smallest}): `{epsilon.consumer.name}` is not finite there; {when}",
        module=op.module or op.layer,
        op=op.name,
        precisions=[run.precision],
        location=trace.place(op),
        label=f"{abs(epsilon.value):.3g} is {'lost' if epsilon.absorbed else '0'} in {format.name}",
        evidence={
            "op_index": op.index,
            "epsilon": epsilon.value,
            "reaches": downstream(run, op.index),
        },
        fixes=list(_fixes(epsilon)),
    )


def _fixes(epsilon: Epsilon) -> Iterator[Fix]:
    if epsilon.absorbed:
        if epsilon.value < 0:
            yield Fix("larger-epsilon", "bound by a number that is not 1")
            return
        yield Fix("stable-form", "add the epsilon where the value is small")
        return
    larger = 1e-4
    yield Fix("larger-epsilon", f"use an epsilon that float16 holds with room to spare, at least {larger:g}")
    yield Fix("float32-island", "normalise in float32 and cast the result")
