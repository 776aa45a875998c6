"""Gradients are smaller than the optimizer's epsilon.

## What it does
For optimizers that divide by √v + ε (Adam and its kin): takes the root mean square of the non-zero gradient elements of each
parameter tensor, at the start and after two steps, and compares it with ε. Error when more than half of the weights lie in
tensors below `error` times ε at both times, warning below `warning` times ε. Tensors whose gradient is rounding noise
(float64 gives a different magnitude, as for a bias before BatchNorm) do not count.

## Why it matters
Adam is independent of the scale of the loss only while gradients are far above ε. Below it the step is lr·g/ε, so a loss
scaled by 1e-6 trains a million times slower, with no sign of it but a flat curve.

## Bad
```python
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))


def example_inputs():
    return (torch.randn(32, 16, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return 1e-9 * nn.functional.cross_entropy(output, torch.arange(32) % 4)


def make_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)  # expect: SD106
```

## Good
```python
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))


def example_inputs():
    return (torch.randn(32, 16, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return nn.functional.cross_entropy(output, torch.arange(32) % 4)


def make_optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)
```

## What it does not detect
Single layers below ε: with Adam that damps a layer, it does not stop it, and layers that start near zero by design
(LayerScale) leave it after a few steps. Without a declared optimizer the severity is one level lower.

## Thresholds
- `error` (1.0), `warning` (10.0): ratio of the gradient to ε.

## References
- Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980, algorithm 1.
- Wortsman et al. 2023, "Small-scale proxies for large-scale Transformer training instabilities", arXiv:2309.14322, section
  3.4: gradients below ε.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod, sqrt

from stabdiag.evidence.signal import steps
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Run, Stats, Trace

KIND = "depth"
LEVEL = "model"
REMEDIES = ("loss-scale", "optimizer-epsilon")
explains = ("SD806",)
NOISE = 0.5  # relative difference of float32 and float64 gradients from which on they are rounding noise


def check(trace: Trace, *, error: float = 1.0, warning: float = 10.0) -> Iterator[Finding]:
    """At most one finding."""
    facts = trace.experiments.first_steps.get("optimizer", {})
    start, later = trace.run("float32"), trace.run("float32", step=2)
    if not facts or not facts["adaptive"] or not facts["eps"] or start is None or later is None:
        return  # one state is no evidence: what is small at the start alone grows with the first steps
    eps = facts["eps"]
    sizes = {p.name: prod(p.shape) for p in start.parameters}
    early, late = _gradients(start, trace.run("float64")), _gradients(later, None)
    both = {name: max(early[name], late[name]) / eps for name in early if name in late}
    total = sum(sizes[name] for name in both)
    for severity, least in ((Severity.ERROR, error), (Severity.WARNING, warning)):
        below = [name for name, ratio in both.items() if ratio < least]
        share = sum(sizes[name] for name in below) / total if total else 0.0
        if share <= 0.5:
            continue
        typical = sorted(both[name] for name in below)[len(below) // 2]
        yield Finding(
            steps.lowered(severity, facts),
            f"{share:.0%} of the weights have gradients below {least:g} times the epsilon {eps:g} of {steps.named(facts)}: "
            f"it takes steps of a fraction of its learning rate",
            phase="step",
            precisions=[p for p in trace.precisions if p != "float64"],
            location=steps.place(facts),
            label=f"gradients are {typical:.2g} times epsilon",
            notes=[
                f"evidence: the gradient of `{below[0]}` has RMS {early[below[0]]:.2g} at the start "
                f"and {late[below[0]]:.2g} after two steps"
            ],
            evidence={"share": share, "eps": eps, "ratio": typical, "parameters": below[:32], "whole_model": True},
            fixes=[
                Fix("loss-scale", "bring the loss to the order of 1"),
                Fix("optimizer-epsilon", "lower the optimizer's epsilon"),
            ],
        )
        return


def _gradients(run: Run, reference: Run | None) -> dict[str, float]:
    """Root mean square of the non-zero gradient elements by parameter, where it is more than rounding noise."""
    exact = {p.name: _of_nonzero(p.gradient) for p in reference.parameters} if reference is not None else {}
    found = {}
    for parameter in run.parameters:
        size = _of_nonzero(parameter.gradient)
        true = exact.get(parameter.name, size)
        if size and true is not None and abs(size - true) <= NOISE * size:
            found[parameter.name] = size
    return found


def _of_nonzero(gradient: Stats | None) -> float | None:
    if gradient is None or not gradient.sampled or gradient.zeros == gradient.count or gradient.nonfinite:
        return None
    return gradient.rms * sqrt(gradient.count / (gradient.count - gradient.zeros))
