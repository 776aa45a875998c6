"""The learning rate is above what the curvature of the loss allows.

## What it does
With `--steps N`: estimates the largest eigenvalue λmax of the Hessian of the loss by power iteration on Hessian-vector
products. Gradient descent with momentum β is stable on a quadratic while lr·λmax < 2 + 2β; Adam and its kin while lr times
the largest eigenvalue of the preconditioned Hessian stays below (2 + 2β₁)/(1 - β₁), which is 38 at β₁ = 0.9 (measured after
five steps, when the second moment means something). The ratio to that limit is judged together with the loss: warning above
`warning` where the loss also rises at some step in two of three seeds, error above `error` where it ends above its start.

## Why it matters
Beyond the limit every step overshoots along the sharpest direction. Networks often find a flatter place and go on; the
further beyond, the less likely, and warm-up exists to bridge the first steps.

## Bad
```python
# scan: steps=20
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Linear(8, 1)


def example_inputs():
    return (torch.randn(64, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean()


def make_optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.6)  # expect: SD802
```

## Good
```python
# scan: steps=20
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Linear(8, 1)


def example_inputs():
    return (torch.randn(64, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean()


def make_optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)
```

## What it does not detect
Optimizers without a known limit, and models with an op that has no second derivative (the report's `training.curvature` says
which). The estimate is a lower bound: few iterations can miss a rate that is slightly too high.

## Thresholds
- `warning` (1.0): ratio to the stability limit. 30 healthy architectures under AdamW at 1e-3 measure 0.00 to 0.88 after five
  steps and up to 0.98 after twenty; a deep sigmoid network measured 199 once while its loss never rose, hence the second
  condition.
- `error` (20.0): likewise.

## References
- Cohen et al. 2021, "Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability", arXiv:2103.00065.
- Cohen et al. 2022, "Adaptive Gradient Methods at the Edge of Stability", arXiv:2207.14484: 38/lr.
- Gilmer et al. 2021, "A Loss Curvature Perspective on Training Instability in Deep Learning", arXiv:2110.04369: warm-up.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.signal import steps
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Trace

KIND = "training"
LEVEL = "model"
REMEDIES = ("gradient-clipping", "lower-learning-rate", "warm-up", "weight-decay")


def check(trace: Trace, *, warning: float = 1.0, error: float = 20.0) -> Iterator[Finding]:
    """At most one finding, about float32."""
    curvature = trace.experiments.training.get("curvature", {})
    ratio = curvature.get("ratio")
    curves = [steps.losses(run) for run in steps.runs(trace).get("float32", [])]
    if ratio is None or not ratio > warning or not steps.agreed(steps.rises(curve) > 0 for curve in curves):
        return
    facts = steps.optimizer(trace)
    grows = steps.agreed(steps.diverged(curve, 1.0) for curve in curves)
    kind = "preconditioned Hessian" if curvature["preconditioned"] else "Hessian"
    safe = facts["lr"] / ratio
    yield Finding(
        steps.lowered(Severity.ERROR if ratio > error and grows else Severity.WARNING, facts),
        f"the learning rate {facts['lr']:g} of {facts['name']} is {ratio:.3g} times what the curvature allows: the largest "
        f"eigenvalue of the {kind} is at least {curvature['eigenvalue']:.3g}, the limit is {curvature['limit']:.3g}",
        phase="step",
        precisions=["float32"],
        location=steps.place(facts),
        label=f"{ratio:.3g} times the stable learning rate",
        notes=[
            f"evidence: the loss rises after {steps.rises(curves[0])} of {len(curves[0])} steps, "
            f"from {curves[0][0]:.3g} to {curves[0][-1]:.3g}"
        ],
        evidence={"ratio": ratio, "eigenvalue": curvature["eigenvalue"], "limit": curvature["limit"], "lr": facts["lr"]},
        fixes=[
            Fix("lower-learning-rate", f"lower the learning rate to {safe:.1g}"),
            Fix("warm-up", f"warm up to it from {safe:.1g}"),
        ],
    )
