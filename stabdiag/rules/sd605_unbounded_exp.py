"""Exponential of a value that nothing keeps from growing.

## What it does
Runs every `exp` of data on moved operands until it overflows: at 88.7 (float32, bfloat16) and 11.09 (float16). How far that is
counts in standard deviations of what feeds it over the samples: an exponent between -27 and -13 is far from 88.7.

- A clamp *after* the exp: the value is kept, the gradient is 0 · inf = NaN. Error within `within` standard deviations in
  float32, else warning.
- 1/(1 + exp(-z)): the value is right for every z, the gradient is NaN where exp overflows. Same severities.
- The exp of what the model computes minus an input, such as a policy's log-probability minus the recorded one, that nothing
  limits: other data bring any difference. Same severities.
- Any other exp, such as exp(log_variance): error within `within` standard deviations in float32, warning within 30 or where
  layers only have to reach a magnitude of 20, else information.

Error whenever it overflows on the probe batch itself.

## Why it matters
An exponent grows additively while its exp grows by factors: one bad batch moves a log-variance from 10 to 90.

## Bad
```python
import torch
from torch import nn


class Gaussian(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.log_variance = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x):
        variance = torch.exp(self.log_variance(x)).clamp(max=100.0)  # expect: SD605
        return self.mean(x), variance


def build_model():
    torch.manual_seed(0)
    return Gaussian()


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    mean, variance = output
    return (mean.pow(2) + variance).mean()
```

## Good
```python
import torch
from torch import nn


class Gaussian(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.log_variance = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x):
        variance = torch.exp(self.log_variance(x).clamp(max=4.6))
        return self.mean(x), variance


def build_model():
    torch.manual_seed(0)
    return Gaussian()


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    mean, variance = output
    return (mean.pow(2) + variance).mean()
```

## What it does not detect
The exp of a parameter alone (a learned temperature, a decay rate): it moves with the learning rate, not with the data.

## Thresholds
- `within` = 10: standard deviations over the samples, of what feeds the op, within which a break is an error.

## References
- Kingma, Welling 2013, "Auto-encoding variational Bayes", arXiv:1312.6114 (where exp(log σ²) comes from).
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.expressions.forms import EXP, LATE_CLAMP, RATIO, SIGMOID_BY_HAND
from stabdiag.evidence.expressions.judgement import Judgement, judgements
from stabdiag.finding import Finding, Fix
from stabdiag.trace import Trace

KIND = "expression"
LEVEL = "line"
REMEDIES = (
    *("cancel-log-exp", "clamp-exponent", "exp-of-half", "logaddexp", "logsumexp", "positive", "sigmoid", "softmax"),
    *("softplus",),
)

_WHAT = {
    LATE_CLAMP: "clamped only after the exp: the value is kept, the gradient is not",
    SIGMOID_BY_HAND: "sigmoid written out: the value is right, the gradient is not",
    EXP: "`exp` of an unbounded value",
    RATIO: "`exp` of a difference from an input, which nothing limits",
}


def check(trace: Trace, *, within: float = 10.0) -> Iterator[Finding]:
    """One finding per line; of several exps of the same layers (deviation, variance) the first, which names the others."""
    causes: dict[object, list[Judgement]] = {}
    for found in judgements(trace, EXP, RATIO, LATE_CLAMP, SIGMOID_BY_HAND, within=within):
        alone = found.expression.form != EXP or found.happens
        causes.setdefault(found.op.index if alone else found.expression.upstream.sources, []).append(found)
    for group in causes.values():
        found = min(group, key=lambda each: (-each.severity.rank, each.op.index))
        others = [at for each in group if each is not found and (at := each.location) is not None]
        yield found.finding(
            f"{_WHAT[found.expression.form]}; the exponent has {found.observed()} here, and it breaks {found.limits()}",
            "exp of an unbounded value",
            _fixes(found),
            notes=tuple(f"evidence: the same layers feed another exp at {at.path}:{at.line}" for at in others),
        )


def _fixes(found: Judgement) -> list[Fix]:
    clamp = Fix("clamp-exponent", "bound the exponent, not its exp")
    if found.expression.form == SIGMOID_BY_HAND:
        return [Fix("sigmoid", "use the stable function")]
    softplus = Fix("positive", "or grow linearly")
    return [clamp] if found.expression.form == LATE_CLAMP else [clamp, softplus]
