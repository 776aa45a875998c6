"""Logarithm of a sigmoid, or of one minus a sigmoid.

## What it does
Follows values from every `log` back to a `sigmoid` (or a 1/(1 + exp(-z)) written by hand) and runs the ops between on scaled
logits z until the result or its gradient is not finite:

- log(1 - σ(z)): 1 - σ is 0 from z = 16.6 (float32), 6.2 (bfloat16), 8.3 (float16) on;
- log σ(z): 1/σ overflows at z = -88.7 (float32, bfloat16), -11.1 (float16);
- log(1e-10 + 1 - σ(z)): the epsilon is absorbed by the 1 before σ is subtracted, so it guards nothing.

Error: confirmed within `within` standard deviations of the logits in a probed precision, or at logits of 20.
Warning: confirmed further out.
Information: the pattern, where the ops could not be run again by themselves.

## Why it matters
It is binary cross-entropy by hand: the loss is infinite, and its gradient NaN, for the first example the model is sure about.

## Bad
```python
import torch
from torch import nn


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x):
        return torch.sigmoid(self.net(x))


def build_model():
    torch.manual_seed(0)
    return Discriminator()


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)


def loss(p):
    y = (torch.arange(6) % 2).to(p.dtype)[:, None]
    return -(y * torch.log(p) + (1 - y) * torch.log(1 - p)).mean()  # expect: SD602
```

## Good
```python
import torch
import torch.nn.functional as F
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)


def loss(z):
    y = (torch.arange(6) % 2).to(z.dtype)[:, None]
    return F.binary_cross_entropy_with_logits(z, y)
```

## What it does not detect
An epsilon that float32 holds (`log(1 - p + 1e-10)`): SD505 judges it in narrower formats. `F.binary_cross_entropy`, which
clamps its logarithms at -100.

## Thresholds
- `within` = 10: standard deviations over the samples, of what feeds the op, within which a break is an error.
  Default initialisation gives
  logits of magnitude 0.5 to 2; a discriminator passes 16 within one epoch.

## References
- Goodfellow, Bengio, Courville 2016, "Deep Learning", section 6.2.2.2.
- Zhang et al. 2020, "Detecting numerical bugs in neural network architectures", ESEC/FSE.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.expressions.forms import LOG_OF_SIGMOID
from stabdiag.evidence.expressions.judgement import judgements
from stabdiag.finding import Finding, Fix
from stabdiag.trace import Trace

KIND = "expression"
LEVEL = "line"
REMEDIES = ("bce-with-logits", "guarded-log", "logsigmoid", "small-output-init", "stable-form")
explains = ("SD505", "SD608")

_FIXES = (
    Fix("bce-with-logits", "let the loss take logits"),
    Fix("logsigmoid", "log σ(z) and log(1 - σ(z)) in one step"),
    Fix("guarded-log", "or keep the probability from 0"),
)


def check(trace: Trace, *, within: float = 10.0) -> Iterator[Finding]:
    """One finding per line that takes the logarithm of a sigmoid."""
    for found in judgements(trace, LOG_OF_SIGMOID, within=within):
        yield found.finding(
            f"`{found.op.name}` of a sigmoid: the logits have {found.observed()} here, and it breaks {found.limits()}",
            "log of a probability that rounds to 0",
            list(_FIXES),
        )
