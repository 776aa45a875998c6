"""Softmax or log-sum-exp written out without subtracting the maximum.

## What it does
Finds exp(z) / Σ exp(z) and log Σ exp(z) by value flow and runs the ops between the layer that makes z and the quotient on
scaled z until something is not finite. exp overflows at z = 88.7 (float32, bfloat16) and 11.09 (float16), and inf / inf is NaN;
where every term underflows (z < -103.3), 0 / 0 is. A softmax that subtracts its maximum does not break and is not reported.

Error: confirmed within `within` standard deviations of z in a probed precision, or at values of 20.
Warning: confirmed further out.
Information: the pattern, where the ops could not be run again by themselves.

## Why it matters
The value of a softmax depends on differences of logits only, the overflow on their absolute size: a common offset that means
nothing ends the training.

## Bad
```python
import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(8, 5)

    def forward(self, x):
        e = torch.exp(self.score(x))  # expect: SD603
        return e / e.sum(dim=1, keepdim=True)


def build_model():
    torch.manual_seed(0)
    return Attention()


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)


def loss(weights):
    return weights.pow(2).sum()
```

## Good
```python
import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(8, 5)

    def forward(self, x):
        z = self.score(x)
        e = torch.exp(z - z.amax(dim=1, keepdim=True))
        return e / e.sum(dim=1, keepdim=True)


def build_model():
    torch.manual_seed(0)
    return Attention()


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)


def loss(weights):
    return weights.pow(2).sum()
```

## What it does not detect
Scores that are bounded by construction (cosine similarities over a fixed temperature).

## Thresholds
- `within` = 10: standard deviations over the samples, of what feeds the op, within which a break is an error.

## References
- Blanchard, Higham, Higham 2021, "Accurately computing the log-sum-exp and softmax functions", IMA J. Numer. Anal. 41.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.expressions.forms import LOGSUMEXP_BY_HAND, SOFTMAX_BY_HAND
from stabdiag.evidence.expressions.judgement import judgements
from stabdiag.finding import Finding, Fix
from stabdiag.trace import Trace

KIND = "expression"
LEVEL = "line"
REMEDIES = ("log-softmax", "logaddexp", "logsumexp", "shift-by-maximum", "softmax")
explains = ("SD605", "SD608")


def check(trace: Trace, *, within: float = 10.0) -> Iterator[Finding]:
    """One finding per line."""
    for found in judgements(trace, SOFTMAX_BY_HAND, LOGSUMEXP_BY_HAND, within=within):
        if found.expression.form == SOFTMAX_BY_HAND:
            what, fix = "softmax", Fix("softmax", "use the shifted softmax")
        else:
            what, fix = "log-sum-exp", Fix("logsumexp", "use the shifted log-sum-exp")
        yield found.finding(
            f"{what} of values that are not shifted: they have {found.observed()} here, and it breaks {found.limits()}",
            "exp of an unshifted value",
            [fix, Fix("shift-by-maximum", "subtract the maximum first")],
        )
