"""Gradient clipping turns finite gradients into zeros, because their norm overflows.

## What it does
With `--clip X`: runs `torch.nn.utils.clip_grad_norm_` in every training step, the two of every scan included, and compares
with the norm in float64. Reported when the gradients were finite and not zero before, and all zero after it.

## Why it matters
The norm is computed in the dtype of the gradients: squares above 3.4e38 (gradients above 1.8e19) overflow in float32.
Dividing by an infinite norm gives zero, so the step does nothing, and `error_if_nonfinite` is off by default. A huge gradient
thus looks like none.

## Bad
```python
# scan: clip=1
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 1)  # expect: SD805

    def forward(self, x):
        return self.head(x)


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 16, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean() * 1e20
```

## Good
```python
# scan: clip=1
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        return self.head(x)


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 16, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean()
```

## What it does not detect
Clipping inside the author's own training loop, which a scan does not run: say `--clip` with its norm.

## Thresholds
None: finite before, zero after.

## References
- pytorch/pytorch#46849: gradients of 1e20 become zeros.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.signal import steps
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Trace

KIND = "training"
LEVEL = "model"
REMEDIES = ("clip-by-value", "loss-scale")


def check(trace: Trace) -> Iterator[Finding]:
    """At most one finding per precision."""
    first = trace.experiments.first_steps
    norms = {"float32": [s["gradient_norm"] for s in first.get("steps", []) if s["clipped_to_zero"]]}
    for precision, runs in steps.runs(trace).items():
        if any(run["clipped_to_zero"] for run in runs):
            found = [row["gradient_norm"] for run in runs for row in run["rows"] if run["clipped_to_zero"]]
            norms[precision] = norms.get(precision) or found[:1]
    base = trace.base
    gradients = [(p.gradient.max_abs, p.name, p.made_at) for p in base.parameters if p.gradient is not None] if base else []
    largest, name, made_at = max(gradients, key=lambda g: g[0], default=(0.0, "", None))
    for precision, of_steps in norms.items():
        if not of_steps:
            continue
        yield Finding(
            Severity.ERROR,
            f"clipping sets all gradients to 0: their norm is {of_steps[0]:.2g}, and its square overflows {precision}",
            module=name.rpartition(".")[0],
            phase="step",
            precisions=[precision],
            location=made_at or steps.place(steps.optimizer(trace)),
            label=f"the gradient of `{name.rpartition('.')[2]}` reaches {largest:.2g}",
            notes=[f"cause: the largest gradient is that of `{name}`, {largest:.3g}; squares overflow float32 above 1.8e19"],
            evidence={"gradient_norm": of_steps[0], "largest": largest, "parameter": name},
            fixes=[
                Fix("loss-scale", "scale the loss down to the order of 1"),
                Fix("clip-by-value", "clip by value, or fail loudly when the norm is not finite"),
            ],
        )
