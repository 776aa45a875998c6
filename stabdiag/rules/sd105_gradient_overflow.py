"""Gradients are too large for float16: at the loss scale that training starts with, or at any.

## What it does
g is the largest gradient of any tensor with more than one element, on the way back and at the parameters, in the float32
run, where the forward pass stays finite in float16. Error when g > 65504: it overflows at loss scale 1, and no loss scale
can help. Warning when g·2^16 exceeds 65504 by more than `skipped_steps` powers of two: that many steps are skipped before
`torch.amp.GradScaler`, which starts at 2^16 and halves, has found a scale. What a static scale in the model's own loss
makes large is judged where it flows in float16 only.

## Why it matters
A few skipped steps are normal. Many say that the gradients lie at the upper end of the range, where one outlier stops
training; overflow at scale 1 is an inf in every step.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 4, bias=False)
        nn.init.normal_(self.two.weight, std=1e-4)

    def forward(self, x):
        return 300 * self.two(torch.tanh(self.one(x)))  # expect: SD105


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 16, generator=torch.Generator().manual_seed(1)),)


def loss(out):
    return (out * 300).sum()
```

## Good
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.two(torch.tanh(self.one(x)))


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 16, generator=torch.Generator().manual_seed(1)),)


def loss(out):
    return out.square().mean()
```

## What it does not detect
Overflow that only a later batch or step brings about (SD803 follows the scale over steps), and overflow of the forward pass
(SD302).

## Thresholds
- `skipped_steps` = 10: powers of two by which the first scale may be too large. Published architectures need 0 to 9.

## References
Micikevicius et al. 2018 (arXiv:1710.03740); torch.amp.GradScaler: init_scale 2^16, backoff factor 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log2

from stabdiag.evidence.numbers.loss_scale import FIRST_SCALE, largest_tensor_gradient
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Op, Run, Trace
from stabdiag.trace.formats import format_of

KIND = "depth"
LEVEL = "op"
BLOCKS = True
REMEDIES = ("float32-loss",)


def check(trace: Trace, *, skipped_steps: float = 10) -> Iterator[Finding]:
    """One finding per precision with float16's range whose forward pass is finite."""
    base = trace.run("float32")
    if base is None or base.error is not None:
        return
    for precision in trace.precisions:
        format, run = format_of(precision), trace.run(precision)
        if format.name != "float16" or run is None or run.error is not None or not _finite_forward(run):
            continue
        largest = largest_tensor_gradient(base, run)
        if not largest:
            continue
        skips = ceil(log2(largest * FIRST_SCALE / format.max))
        if largest > format.max:
            severity, said = Severity.ERROR, f"a gradient of {largest:.3g} exceeds {format.max:.0f} without any loss scale"
        elif skips > skipped_steps:
            severity = Severity.WARNING
            said = f"a gradient of {largest:.3g} makes the scaler skip the first {skips} steps, down to 2^{16 - skips}"
        else:
            continue
        op = _where(base, run, format.max if severity is Severity.ERROR else largest / 2)
        yield Finding(
            severity,
            said,
            **{**at(op), "phase": "backward"},
            precisions=[precision],
            label=f"the gradient reaches {largest:.3g} behind this line",
            evidence={"largest_gradient": largest, "skipped_steps": skips, **({"op_index": op.index} if op else {})},
            fixes=[
                Fix("mean-loss", "average the loss instead of adding it up"),
                Fix("bfloat16", "use bfloat16, whose range is that of float32"),
            ],
        )


def _finite_forward(run: Run) -> bool:
    return not any(
        v.stats is not None and v.stats.nonfinite
        for op in run.phase("forward", "loss")
        if (v := run.output_of(op)) is not None and not op.view and op.name not in ("full", "masked_fill", "where")
    )


def _where(base: Run, run: Run, limit: float) -> Op | None:
    """The op nearest to the loss that hands on a gradient above a limit."""
    for op in sorted(base.phase("forward", "loss"), key=lambda o: -o.index):
        for i in op.inputs:
            value = base.values[base.behind_views(i)]
            if value.gradient is not None and value.gradient.count > 1 and value.gradient.max_abs > limit * base.loss_scale:
                return op
    return None
