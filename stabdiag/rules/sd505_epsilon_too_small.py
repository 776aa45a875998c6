"""An epsilon that is zero in the format, so that it protects nothing.

## What it does
Finds constants added to, or bounding, an operand that is then divided by, rooted or taken the logarithm of, and that the
format of that op loses: below half its smallest number (2^-25 in float16: 1e-8 and 1e-12 are 0 there), or absorbed in a 1 (1
+ 1e-10 is 1 in float32). Confirmed by running the model in that precision with one element of the operand at zero: the loss
must become non-finite, and stay finite in float32. Epsilons of native normalisation kernels, which compute in float32, are
left alone. With `--steps`, the optimizer's own epsilon is judged too: by the step that divides by 0.

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
Epsilons of optimizers, and epsilons inside opaque kernels. An error needs the operand at zero in the probed run or on a blank
sample; where only the forced zero breaks it, the finding is information.

## Thresholds
None: the limits are the format's smallest number and its unit roundoff. Constants above 1e-3 are not taken for epsilons
(`stabdiag.evidence.epsilon.LARGEST`).

## References
- IEEE 754-2019: the smallest positive float16 is 2^-24.
- PyTorch issue 66707 and huggingface/diffusers pull request 13316: epsilons that vanish in float16.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence import steps
from stabdiag.evidence.epsilon import Epsilon, bites, lost
from stabdiag.evidence.graph import downstream
from stabdiag.evidence.snippet import expression
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.formats import format_of
from stabdiag.picture import place
from stabdiag.trace import Run, Trace

explains = ("SD301",)


def check(trace: Trace) -> Iterator[Finding]:
    """One finding per place and precision."""
    tried = trace.experiments.get("epsilon", {})
    for run in trace.runs:
        if run.precision == "float64" or run.step or run.seed:
            continue
        seen: set[object] = set()
        for epsilon in lost(run):
            fact = tried.get(run.precision, {}).get(str(epsilon.op.index), {})
            observed = bites(run, epsilon)
            if epsilon.op.site in seen or not (observed or fact.get("breaks")):
                continue
            seen.add(epsilon.op.site)
            yield _finding(trace, run, epsilon, observed, bool(fact.get("reached")))
    yield from _of_the_optimizer(trace)


def _of_the_optimizer(trace: Trace) -> Iterator[Finding]:
    """An error only where both optimizer and precision were chosen: Adam as it comes breaks on float16 weights of any model."""
    facts = steps.optimizer(trace)
    for precision, runs in steps.runs(trace).items():
        broken = [run for run in runs if steps.epsilon_vanishes(run, facts)]
        if not broken:
            continue
        born = broken[0]["birth"]
        asked = steps.chosen(facts) and trace.experiments["training"]["precisions_chosen"]
        yield Finding(
            "",
            "",
            Severity.ERROR if asked else Severity.INFO,
            f"the epsilon {facts['eps']:g} of {steps.named(facts)} is 0 in {precision}: where a gradient squares to 0, "
            f"the step divides by 0, and the weights are not finite after step {broken[0]['taken']}",
            module=born["layer"],
            op=born["op"],
            phase="step",
            precisions=[precision],
            location=steps.place(facts),
            label=f"{facts['eps']:g} is 0 in {precision}",
            evidence={"epsilon": facts["eps"], "birth": born},
            fixes=[
                Fix(
                    "float32-master-weights",
                    f"keep weights and optimizer in float32 and compute in {precision} under autocast",
                    f"with torch.autocast(device_type, dtype=torch.{precision}):",
                ),
                Fix("larger-epsilon", f"give the optimizer an epsilon that {precision} can hold", "eps=1e-4"),
            ],
        )


def _finding(trace: Trace, run: Run, epsilon: Epsilon, observed: bool, reached: bool) -> Finding:
    op = epsilon.op
    output = run.output_of(op)
    assert output is not None
    format = format_of(output.dtype)
    how = f"absorbed in the 1 it is added to in {format.name}" if epsilon.absorbed else f"0 in {format.name}"
    smallest = f"u = {format.unit_roundoff:.2g}" if epsilon.absorbed else f"smallest number {format.smallest:.2g}"
    when = "the run shows it" if observed else "a blank sample reaches it" if reached else "seen with a forced zero only"
    return Finding(
        "",
        "",
        Severity.ERROR if observed or reached else Severity.INFO,
        f"the epsilon {epsilon.value:.3g} is {how} ({smallest}): `{epsilon.consumer.name}` is not finite at 0; {when}",
        module=op.module or op.layer,
        op=op.name,
        precisions=[run.precision],
        location=place(trace, op),
        label=f"{epsilon.value:.3g} is {'lost' if epsilon.absorbed else '0'} in {format.name}",
        evidence={
            "op_index": op.index,
            "epsilon": epsilon.value,
            "observed": observed,
            "reached": reached,
            "reaches": downstream(run, op.index),
        },
        fixes=list(_fixes(epsilon, format.smallest)),
    )


def _fixes(epsilon: Epsilon, smallest: float) -> Iterator[Fix]:
    at = epsilon.op.location
    if epsilon.absorbed:
        yield Fix("stable-form", "add the epsilon where the value is small", "torch.log((1 - p).clamp_min(1e-6))")
        return
    larger = 1e-4
    text = (
        expression(at, f"x + {epsilon.value:g}").replace(f"{epsilon.value!r}", f"{larger:g}").replace("self.eps", f"{larger:g}")
    )
    yield Fix("larger-epsilon", f"use an epsilon that float16 holds with room to spare, at least {larger:g}", text)
    yield Fix("float32-island", "normalise in float32 and cast the result", "h = F.normalize(h.float(), dim=-1).to(h.dtype)")
