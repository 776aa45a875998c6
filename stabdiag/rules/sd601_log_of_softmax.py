"""Logarithm of a softmax.

## What it does
Follows values from every `log` back through views, selections, sums, clamps and multiplications to a `softmax`, in whichever
module or function that is, also one written by hand. Then it runs the ops between on moved logits until the result or its
gradient is not finite. With g the spread max z - min z of a row of logits:

- value: the smallest probability e^-g rounds to 0, and log 0 = -inf, at g = 104 (float32), 92.7 (bfloat16), 17.3 (float16);
- gradient: 1/p overflows at g = 88.7 (float32, bfloat16), 11.1 (float16), and 0 · inf makes NaN of it.

Error: confirmed within `within` standard deviations of the logits in a probed precision, or at logits of 20.
Warning: confirmed further out.
Information: the pattern, where the ops could not be run again by themselves.

## Why it matters
A classifier becomes confident while it is trained: the better it gets, the nearer it comes to the limit. `log_softmax` computes
z - logsumexp(z), which has no limit.

## Bad
```python
import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return torch.softmax(self.fc(x), dim=1)


def build_model():
    torch.manual_seed(0)
    return Classifier()


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)


def loss(p):
    return -torch.log(p)[torch.arange(6), torch.arange(6) % 4].mean()  # expect: SD601
```

## Good
```python
import torch
import torch.nn.functional as F
from torch import nn


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return F.log_softmax(self.fc(x), dim=1)


def build_model():
    torch.manual_seed(0)
    return Classifier()


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)


def loss(log_p):
    return -log_p[torch.arange(6), torch.arange(6) % 4].mean()
```

## What it does not detect
A logarithm kept from 0 by a clamp or an epsilon that float32 holds (SD505 judges the epsilon in narrower formats), logits that
are bounded by construction.

## Thresholds
- `within` = 10: standard deviations over the samples, of what feeds the op, within which a break is an error.
  Default initialisation gives logits a spread
  of 1 to 3; trained classifiers reach 20 to 50.

## References
- Blanchard, Higham, Higham 2021, "Accurately computing the log-sum-exp and softmax functions", IMA J. Numer. Anal. 41.
- Zhang et al. 2020, "Detecting numerical bugs in neural network architectures", ESEC/FSE.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.expressions.forms import LOG_OF_SOFTMAX
from stabdiag.evidence.expressions.judgement import judgements
from stabdiag.finding import Finding, Fix
from stabdiag.trace import Trace

KIND = "expression"
LEVEL = "line"
REMEDIES = ("cross-entropy", "guarded-log", "log-softmax")
explains = ("SD401", "SD505", "SD608")

_FIXES = (
    Fix("log-softmax", "compute the logarithm of the softmax in one step"),
    Fix("cross-entropy", "let the loss take logits"),
    Fix("guarded-log", "or keep the probability from 0"),
)


def check(trace: Trace, *, within: float = 10.0) -> Iterator[Finding]:
    """One finding per line that takes the logarithm of a softmax."""
    for found in judgements(trace, LOG_OF_SOFTMAX, within=within):
        yield found.finding(
            f"`{found.op.name}` of a softmax: the logits have {found.observed()} here, and it breaks {found.limits()}",
            "log of a probability that rounds to 0",
            list(_FIXES),
        )
