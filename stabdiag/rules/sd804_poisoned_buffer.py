"""A buffer is NaN or infinite although nothing else shows it.

## What it does
Looks at all floating-point buffers (the running statistics of normalisation layers, moving averages) before and after each
recorded run and after the training steps. Reported when a buffer that was finite no longer is, while the loss was finite or,
with `--steps`, the step was skipped by the loss scaler and training went on.

## Why it matters
A skipped step leaves the weights alone, not the buffers. Training goes on with a loss that looks healthy, and everything that
is evaluated with these statistics is NaN: it shows first in validation.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(16)  # expect: SD804
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        return self.head(self.norm(x * 2000))


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 16, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean()
```

## Good
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        return self.head(self.norm(x * 2))


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 16, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean()
```

## What it does not detect
State that modules keep outside of buffers. A buffer that holds an infinity from the start (a mask) is meant to and is left
alone.

## Thresholds
None: NaN and infinity are facts.

## References
- pytorch/pytorch#88474, #115500: running statistics poisoned under mixed precision, seen in validation only.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from stabdiag.evidence.signal import steps
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Trace

KIND = "training"
LEVEL = "layer"
REMEDIES = ("group-norm", "standardise-data", "standardise-input")


def check(trace: Trace) -> Iterator[Finding]:
    """One finding per module whose buffers were poisoned, and precision; triage merges the precisions."""
    poisoned: dict[tuple[str, str], list[str]] = {}
    for run in trace.runs:
        if run.loss is not None and isfinite(run.loss):
            _collect(poisoned, run.precision, run.poisoned_buffers)
    first = trace.experiments.first_steps
    diverges = any(steps.failed(run) for run in steps.runs(trace).get("float32", []))
    if not diverges and steps.chosen(first.get("optimizer", {})) and all(isfinite(step["loss"]) for step in first["steps"]):
        _collect(poisoned, "float32", first.get("poisoned_buffers", []))
    for precision, runs in steps.runs(trace).items():
        for trained in runs:
            if not steps.failed(trained):
                _collect(poisoned, precision, trained.get("poisoned_buffers", []))
    for (precision, module), names in poisoned.items():
        verb = "is" if len(names) == 1 else "are"
        shown = ", ".join(f"`{name}`" for name in names)
        yield Finding(
            Severity.ERROR,
            f"{shown} {verb} not finite after a training step in {precision} whose loss is finite",
            module=module,
            precisions=[precision],
            location=trace.modules.get(module),
            label=f"its {', '.join(name.rpartition('.')[2] for name in names)} overflows",
            evidence={"buffers": names},
            fixes=[
                Fix("float32-island", "keep this module and its buffers in float32"),
                Fix("standardise-input", "bring its input to unit scale"),
            ],
        )


def _collect(poisoned: dict[tuple[str, str], list[str]], precision: str, names: list[str]) -> None:
    for name in names:
        known = poisoned.setdefault((precision, name.rpartition(".")[0]), [])
        if name not in known:
            known.append(name)
