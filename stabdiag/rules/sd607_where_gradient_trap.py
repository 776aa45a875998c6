"""A where that hides the value of a singular function, but not its gradient.

## What it does
Finds where and masked_fill whose branch holds a logarithm, quotient, root, power or exp of data, runs the branch on pushed
operands together with the where and its condition, and reports it when the result stays finite while the gradient does not.

Error: on the probe batch itself, or within `within` standard deviations. Warning: within what training can move, in any probed
precision, or at exactly 0. Information: further out.

## Why it matters
The branch not taken gets the gradient 0, and 0 times the infinite derivative of the function at that place is NaN.

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
    return torch.where(z > 0, torch.sqrt(z), torch.zeros_like(z)).mean()  # expect: SD607
```

## Good
```python
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Linear(8, 4)


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)


def loss(z):
    inside = torch.where(z > 0, z, torch.ones_like(z))
    return torch.where(z > 0, torch.sqrt(inside), torch.zeros_like(z)).mean()
```

## What it does not detect
A multiplication with a mask instead of a where: 0 · inf shows in the value, and SD606 or SD608 report it.

## Thresholds
- `within` = 10: standard deviations over the samples, of what feeds the op, within which a break is an error.

## References
- JAX documentation, "Gradients contain NaN where using where".
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.expressions.judgement import judgements
from stabdiag.finding import Finding, Fix
from stabdiag.trace import Trace

KIND = "expression"
LEVEL = "line"
REMEDIES = ("sanitise-input",)
explains = ("SD102",)


def check(trace: Trace, *, within: float = 10.0) -> Iterator[Finding]:
    """One finding per line."""
    for found in judgements(trace, within=within, trapped=True):
        danger = found.run.ops[found.expression.danger]
        selected = found.run.ops[found.expression.selected or 0]
        name = danger.name
        at = f" at {selected.location.path}:{selected.location.line}" if selected.location else ""
        yield found.finding(
            f"`{selected.name.strip('_')}`{at} hides the value of `{name}` outside its domain, but not its gradient: the "
            f"operand has {found.observed()} here, and it breaks {found.limits()}",
            "its gradient is 0 · inf where the other branch is taken",
            [Fix("sanitise-input", "make the operand harmless first")],
        )
