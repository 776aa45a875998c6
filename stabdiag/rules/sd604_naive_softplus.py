"""Softplus, log-add-exp or log-cosh written out.

## What it does
Finds log(1 + exp(z)), log1p(exp(z)), log(exp(a) + exp(b)) and log(cosh(z)) by value flow and runs them on scaled z until the
result or its gradient is not finite: exp overflows at z = 88.7 (float32, bfloat16) and 11.09 (float16).

Error: confirmed within `within` standard deviations of z in a probed precision, or at values of 20.
Warning: confirmed further out.
Information: the pattern, where the ops could not be run again by themselves.

## Why it matters
For large z the result is z itself, a harmless number; written out it is infinite, and its gradient inf / inf = NaN.

## Bad
```python
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Linear(8, 4)


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)


def loss(z):
    return torch.log(1 + torch.exp(z)).mean()  # expect: SD604
```

## Good
```python
import torch
import torch.nn.functional as F
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Linear(8, 4)


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)


def loss(z):
    return F.softplus(z).mean()
```

## What it does not detect
Exponents that cannot grow: -|z|, clamped ones.

## Thresholds
- `within` = 10: standard deviations over the samples, of what feeds the op, within which a break is an error.

## References
- Mächler 2012, "Accurately computing log(1 - exp(-|a|))", R package Rmpfr (log1pexp).
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.expressions.forms import SOFTPLUS_BY_HAND
from stabdiag.evidence.expressions.judgement import judgements
from stabdiag.evidence.expressions.wording import argument
from stabdiag.finding import Finding, Fix
from stabdiag.trace import Trace

KIND = "expression"
LEVEL = "line"
REMEDIES = ("logaddexp", "softplus")
explains = ("SD605", "SD608")


def check(trace: Trace, *, within: float = 10.0) -> Iterator[Finding]:
    """One finding per line."""
    for found in judgements(trace, SOFTPLUS_BY_HAND, within=within):
        z = argument(found.run.ops[found.expression.danger]) or "z"
        cosh = found.cause is not None and found.cause.name.startswith("cosh")
        what = f"log(cosh({z}))" if cosh else f"log(1 + exp({z}))"
        fixes = [
            Fix("softplus", "use the stable function"),
            Fix("logaddexp", "the same for a sum of two exponentials"),
        ]
        if cosh:
            fixes = [Fix("softplus", "use the stable form")]
        yield found.finding(
            f"`{what}` written out: the exponent has {found.observed()} here, and it breaks {found.limits()}",
            "logarithm of 1 + an exp that overflows",
            fixes,
        )
