"""Weights or running state stored in 16 bits do not notice their updates.

## What it does
Takes the float32 updates Δ of the first two optimizer steps (weight decay included) and adds each to its weight w rounded
to the format. An update is lost when the sum rounds back to w, that is when |Δ| is below half the distance to the next
number. Reported when both the share of lost updates and the share of the squared update norm Σ Δ² that they carry exceed
`warning` or `error`. Updates that momentum or a warm-up will still enlarge are enlarged first, by 1/(1-momentum) and by the
ratio to the rate the schedule leads to.

State that the forward pass updates itself (running averages, slow copies of the weights, counters) is judged from the graph
of the run in the format: a state that keeps the share a of itself moves by r = 1 - a of its distance to what it follows, and
stands still as long as that distance is below u/r of its own size (u the unit roundoff). Warning above `lag`, error above
`still`. What only adds up stands still at 2^p times what is added: a warning.

## Why it matters
A bfloat16 number keeps 8 bits: next to 1.0 the neighbours are 0.0078 above and 0.0039 below, and an Adam step of 6e-4 never
gets there. The loss stalls early and nothing says why. float16 keeps 11 bits and loses updates eight times smaller.

## Bad
```python
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 4))


def example_inputs():
    return (torch.randn(32, 32, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return nn.functional.cross_entropy(output, torch.arange(32) % 4)


def make_optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=1e-5)  # expect: SD504
```

## Good
```python
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 4))


def example_inputs():
    return (torch.randn(32, 32, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return nn.functional.cross_entropy(output, torch.arange(32) % 4)


def make_optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=1e-1)
```

## What it does not detect
Stagnation that sets in later, when gradients have become small. It speaks of weights stored in the format; with float32
master weights or autocast (which keeps weights in float32) nothing of it applies. Without a declared optimizer it is
silent: nobody chose that learning rate.

## Thresholds
- `warning` (0.25): share of lost updates, and share of the squared norm that they carry. The second condition tells a step
  that is lost from one that loses its small change only: of a small MLP under SGD at 0.1 33 % of the bfloat16 updates are
  lost, with 1.3 % of the norm (healthy); at 1e-5 100 % with 100 %; LayerNorm weights of 1 under Adam at 6e-4 70 % with 71
  %. Adam in bfloat16 loses 0 to 0.3 % of the updates at 1e-3, up to 58 % at 1e-4, 65 to 94 % at 1e-5.
- `error` (0.75): likewise.
- `lag` (0.25): distance to what it follows, in units of its own size, at which a running average of the forward pass stands
  still: a momentum of 0.1 stops at 0.04 in bfloat16 and 0.005 in float16, 0.01 at 0.39 and 0.05, 0.001 at 3.9 and 0.49.
- `still` (1.0): likewise, from which nothing moves that keeps its order of magnitude.

## References
- Zamirai et al. 2020, "Revisiting BFloat16 Training", arXiv:2010.06192: nearest rounding of weight updates, stochastic
  rounding, Kahan.
- pytorch/ao#1124; meta-pytorch/torchtune#2254.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stabdiag.evidence.numbers.state import State, states
from stabdiag.evidence.signal import steps
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Run, Trace
from stabdiag.trace.formats import format_of

KIND = "rounding"
LEVEL = "model"
REMEDIES = ("higher-learning-rate", "stochastic-rounding")

STORED = ("float16", "bfloat16")


def check(
    trace: Trace, *, warning: float = 0.25, error: float = 0.75, lag: float = 0.25, still: float = 1.0
) -> Iterator[Finding]:
    """At most one finding per format that weights are stored in, and one per line that updates a state."""
    yield from _of_weights(trace, warning, error)
    for precision in STORED:
        run = trace.run(precision)
        if run is not None:
            yield from _of_states(trace, run, lag, still)


def _of_states(trace: Trace, run: Run, lag: float, still: float) -> Iterator[Finding]:
    """States that the format holds still, one finding per line."""
    format = format_of(run.precision)
    lines: dict[object, list[tuple[float, State]]] = {}
    for state in states(run):
        rate = 1.0 - state.keeps
        if state.dtype != format.name or not (state.grows or 0.0 < rate < 1.0):
            continue
        stands = 0.0 if state.grows else format.unit_roundoff / rate
        if state.grows or stands > lag:
            at = state.op.location
            lines.setdefault((at.path, at.line) if at is not None else state.op.index, []).append((stands, state))
    for found in lines.values():
        stands, state = max(found, key=lambda one: one[0])
        name = f"`{state.name}`" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        if state.grows:
            message = f"{name} adds up in {format.name} and stands still at {2**format.digits:,} times what is added per pass"
        else:
            message = (
                f"{name} moves by {1.0 - state.keeps:.2g} of its distance to what it follows, and in {format.name} not at all "
                f"before that distance is {stands:.2g} times its own size"
            )
        yield Finding(
            Severity.ERROR if stands > still else Severity.WARNING,
            message,
            module=state.op.module,
            op=state.op.name,
            precisions=[run.precision],
            location=trace.place(state.op),
            label=f"rounds away in {format.name}",
            evidence={"op_index": state.op.index, "keeps": state.keeps, "stands": stands, "states": [s.name for _, s in found]},
            fixes=[
                Fix("float32-state", "keep the state in float32, out of reach of a cast of the model, and cast what reads it")
            ],
        )


def _of_weights(trace: Trace, warning: float, error: float) -> Iterator[Finding]:
    first = trace.experiments.first_steps
    tensors: list[dict[str, Any]] = first.get("parameters", [])
    moving = sum(t["moving"] for t in tensors)
    energy = sum(t["energy"] for t in tensors)
    facts = first.get("optimizer", {})
    if not steps.chosen(facts) or not moving or not energy:
        return
    for precision in (p for p in STORED if trace.run(p) is not None):
        lost = sum(t["lost"][precision] for t in tensors) / moving
        lost_energy = sum(t["lost_energy"][precision] for t in tensors) / energy
        least = min(lost, lost_energy)
        if not least > warning:
            continue
        severity = Severity.ERROR if least > error else Severity.WARNING
        worst = sorted((t for t in tensors if t["moving"]), key=lambda t: -t["lost"][precision] / t["moving"])
        yield Finding(
            severity,
            f"{lost:.0%} of the weight updates round away when weights are stored in {precision}: {steps.named(facts)} moves "
            f"weights by less than half the distance to the next {precision} number",
            phase="step",
            precisions=[precision],
            location=steps.place(facts),
            label=f"{lost:.0%} of the updates are lost in {precision}",
            notes=[
                _worst(worst[0], precision),
                f"evidence: the lost updates carry {lost_energy:.0%} of the squared norm of the step",
            ],
            evidence={
                "lost": lost,
                "lost_energy": lost_energy,
                "lr": facts["lr"],
                "parameters": [t["name"] for t in worst if t["lost"][precision] > warning * t["moving"]][:32],
            },
            fixes=_fixes(facts, precision),
        )


def _worst(tensor: dict[str, Any], precision: str) -> str:
    share = tensor["lost"][precision] / tensor["moving"]
    return (
        f"cause: `{tensor['name']}` loses {share:.0%} of its updates, which have RMS {tensor['update']:.2g} at weights of RMS "
        f"{tensor['weight']:.2g}"
    )


def _fixes(facts: dict[str, Any], precision: str) -> list[Fix]:
    return [
        Fix("float32-master-weights", f"keep the weights in float32 and compute in {precision} under autocast"),
        Fix("stochastic-rounding", "round the updated weights stochastically, or sum with Kahan compensation"),
        Fix("higher-learning-rate", f"raise the learning rate above {facts['lr']:g} if the loss allows it"),
    ]
