"""The optimizer moves the weights by far too much or too little per step.

## What it does
For every weight with two or more dimensions that is not zero, compares the root mean square of its second update with that of
the weight, ‖Δw‖/‖w‖. Reported when the median over these tensors lies above `most` and the first step lowered the loss by less
than `kept` of what its gradient promised, -g·Δw: weights that must grow take large steps that are right. Also when the median,
after enlarging updates that momentum or a warm-up will still enlarge, lies below `least`; and as an information when the
fastest and the slowest tenth of the tensors differ by more than `spread`. Only for an optimizer that the author declared or the
command line chose.

## Why it matters
A step that changes a weight by a tenth of its size throws away what it had; one that changes it by a hundred-thousandth needs
a hundred thousand steps to get anywhere.

## Bad
```python
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))


def example_inputs():
    return (torch.randn(32, 16, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return nn.functional.cross_entropy(output, torch.arange(32) % 4)


def make_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=0.3)  # expect: SD806
```

## Good
```python
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))


def example_inputs():
    return (torch.randn(32, 16, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return nn.functional.cross_entropy(output, torch.arange(32) % 4)


def make_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)
```

## What it does not detect
Ratios that drift later in training.

## Thresholds
- `least` (1e-5), `most` (1e-1): median of the ratio. Healthy small models under AdamW at 1e-3 measure 1e-3 to 4e-2, SGD at
  0.1 2e-2, SGD at 1e-5 2e-6.
- `kept` (0.5): of the promised fall. A step of gradient descent with lr·λ along it keeps 1 - lr·λ/2, so one half is the best
  step, and what overshoots lies below. A regression on targets 30 times the weights keeps 1.0 at a ratio of 0.33.
- `spread` (1e4): 90th to 10th percentile.

## References
- Karpathy, "makemore" lectures and CS231n notes, "Ratio of weights:updates": about 1e-3.
- You et al. 2017, "Large Batch Training of Convolutional Networks", arXiv:1708.03888: ratios differ between layers (LARS).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median, quantiles
from typing import Any

from stabdiag.evidence.signal import steps
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Trace

KIND = "training"
LEVEL = "model"
REMEDIES = ("higher-learning-rate", "lower-learning-rate", "weight-norm")

FEW = 5  # tensors, below which percentiles mean nothing


def check(
    trace: Trace, *, least: float = 1e-5, most: float = 1e-1, kept: float = 0.5, spread: float = 1e4
) -> Iterator[Finding]:
    """At most one finding."""
    first = trace.experiments.first_steps
    facts = first.get("optimizer", {})
    if not steps.chosen(facts):
        return
    weights = [t for t in first["parameters"] if len(t["shape"]) >= 2 and t["weight"] > 0 and t["moving"]]
    if not weights:
        return
    ratios = sorted((t["update"] / t["weight"], t["growth"], t["name"]) for t in weights)
    now = median(ratio for ratio, _, _ in ratios)
    later = median(ratio * growth for ratio, growth, _ in ratios)
    slowest, fastest = ratios[0], ratios[-1]
    tenths = quantiles([ratio for ratio, _, _ in ratios], n=10) if len(ratios) >= FEW else []
    if now > most and not _as_promised(first, kept):
        lowered = facts["lr"] * most / now / 10
        fix = Fix("lower-learning-rate", f"lower the learning rate towards {lowered:.1g}")
        what, severity = f"a step changes the weights by {now:.2g} of their size (median)", Severity.WARNING
    elif later < least:
        raised = facts["lr"] * 1e-3 / later if later else facts["lr"] * 100
        fix = Fix("higher-learning-rate", f"raise the learning rate towards {raised:.1g}")
        what, severity = f"a step changes the weights by only {now:.2g} of their size (median)", Severity.WARNING
    elif tenths and tenths[-1] > spread * tenths[0]:
        fix = Fix("layerwise-rates", "give slow layers a rate of their own, or use Adam")
        what = f"layers learn at different speeds: a step changes weights by {tenths[0]:.2g} to {tenths[-1]:.2g} of their size"
        severity = Severity.INFO
    else:
        return
    yield Finding(
        severity,
        f"{what} under {steps.named(facts)}",
        phase="step",
        precisions=["float32"],
        location=steps.place(facts),
        label=f"‖Δw‖/‖w‖ = {now:.2g}",
        notes=[f"evidence: from {slowest[0]:.2g} (`{slowest[2]}`) to {fastest[0]:.2g} (`{fastest[2]}`)"],
        evidence={"median": now, "smallest": slowest[0], "largest": fastest[0], "lr": facts["lr"]},
        fixes=[fix],
    )


def _as_promised(first: Mapping[str, Any], kept: float) -> bool:
    """Whether the first step lowered the loss by `kept` of what its gradient promised: then it is not too large for the
    surface, however large for the weights."""
    losses, promised = [step["loss"] for step in first["steps"]], first["promised"]
    if len(losses) < 2 or not promised or not promised[0] > 0:
        return False
    return bool(losses[0] - losses[1] >= kept * promised[0])
