"""Attention logits far larger than a softmax can use.

## What it does
Takes the largest positive logit that enters the softmax of an attention (a softmax whose logits come from a product of two
activations), scaled and soft-capped as the author does, masks excluded: they are negative. A warning above `warning`, an
error above `error`.

## Why it matters
Logits in the thousands are the signature of diverging attention: queries and keys feed each other's growth, rows become
one-hot, and the loss diverges at learning rates that were fine before. float16 overflows at 65,504 and bfloat16 cannot tell
1,001 from 1,004.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 64), nn.Linear(8, 64), nn.Linear(8, 64)
        for layer in (self.q, self.k):
            nn.init.normal_(layer.weight, std=30.0)

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        scores = q @ k.transpose(1, 2)  # expect: SD404
        weights = torch.softmax(scores, -1)
        return weights @ v


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return output.square().mean()
```

## Good
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 64), nn.Linear(8, 64), nn.Linear(8, 64)

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        scores = q @ k.transpose(1, 2) / 8.0
        weights = torch.softmax(scores, -1)
        return weights @ v


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return output.square().mean()
```

## What it does not detect
Large logits of a classifier (SD705, SD401), and large negative logits whose row has no large positive one.

## Thresholds
- `warning` = 1000, `error` = 10000. Healthy attention at initialisation stays below 50 (65 models: median 0.14, largest
  46); 22B-parameter vision transformers diverged when their logits passed 50,000.

## References
Dehghani et al. 2023, Scaling Vision Transformers to 22 Billion Parameters (arXiv:2302.05442); Wortsman et al. 2023,
Small-scale proxies for large-scale Transformer training instabilities (arXiv:2309.14322).
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.graph.author_line import line_of_op
from stabdiag.evidence.graph.softmax import MEASUREMENTS as MEASUREMENTS
from stabdiag.evidence.graph.softmax import projections, softmaxes
from stabdiag.evidence.signal.units import probed
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Trace

KIND = "attention"
LEVEL = "op"
REMEDIES = ("qk-norm", "qk-norm-function", "scale-logits", "soft-cap", "xavier-init")
explains = ("SD401", "SD402", "SD405")


def check(trace: Trace, *, warning: float = 1e3, error: float = 1e4) -> Iterator[Finding]:
    """Judge every attention of the model as built."""
    run = trace.run("float32")
    if run is None:
        return
    for softmax in softmaxes(run):
        logits = [stats for op in softmax.site.ops if (stats := run.values[run.behind_views(op.inputs[0])].stats) is not None]
        largest = max((s.max for s in logits if not s.nan and not s.posinf), default=0.0)
        if softmax.by_hand or largest <= warning or (scores := softmax.scores) is None:
            continue
        yield Finding(
            Severity.ERROR if largest > error else Severity.WARNING,
            f"attention logits reach {largest:,.0f}",
            precisions=probed(trace),
            label=f"reaches {largest:,.0f}",
            evidence={"largest_logit": largest, "op_index": softmax.op.index, **projections(softmax)},
            fixes=[
                Fix("scale-logits", "divide the scores by the square root of the head's width"),
                Fix("qk-norm", "normalise queries and keys"),
                Fix("soft-cap", "cap the logits smoothly"),
            ],
            **at(softmax.op) | {"location": line_of_op(trace, scores)},
        )
