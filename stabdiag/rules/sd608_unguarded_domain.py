"""Logarithm, division or power of a value that can leave the function's domain.

## What it does
Searches, for every logarithm, division, root and fractional or negative power, a state of what feeds it in which the result or
its gradient stops being finite while the operand is finite, or a denominator changes its sign: layers' outputs and inputs
are scaled, shifted, made 0, constant, equal or parallel, and moved along the gradient of the distance to the singular point;
trained parameters are moved as training can move them. A root is reported where its operand goes below 0; where it only
reaches 0, SD606 does. Divisions by counts and by values that are positive by construction do not break and are not reported.

Error: on the probe batch itself; or within `within` standard deviations of what feeds it, over the samples; or a denominator
that changes its sign within the batch. Warning: within what training can move (30 standard deviations, a magnitude of 20, 1,500
steps of Adam for a parameter), or only for data of a special shape (two equal samples, parallel vectors, all 0) that is not far
from what was seen. Information: further out.

## Why it matters
One blank image, one constant feature, one row without a hit, and the loss is NaN; the weights are after the next step.

## Bad
```python
import torch
from torch import nn


class Normalise(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        h = torch.relu(self.fc(x))
        return h / h.sum(dim=1, keepdim=True)  # expect: SD608


def build_model():
    torch.manual_seed(0)
    return Normalise()


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)


def loss(shares):
    return shares.pow(2).sum()
```

## Good
```python
import torch
from torch import nn


class Normalise(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        h = torch.relu(self.fc(x))
        return h / (h.sum(dim=1, keepdim=True) + 1e-6)


def build_model():
    torch.manual_seed(0)
    return Normalise()


def example_inputs():
    return (torch.randn(6, 8, generator=torch.Generator().manual_seed(1)),)


def loss(shares):
    return shares.pow(2).sum()
```

## What it does not detect
An epsilon that float32 holds and a narrower format does not: SD505. A norm of many values that is far from 0, of data or of
weights: no training brings all of them to 0 together.

## Thresholds
- `within` = 10: standard deviations over the samples, of what feeds the op, within which a break is an error.

## References
- Zhang et al. 2020, "Detecting numerical bugs in neural network architectures", ESEC/FSE.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.expressions.forms import LOGARITHM, POWER, QUOTIENT, ROOT
from stabdiag.evidence.expressions.judgement import Judgement, judgements
from stabdiag.evidence.expressions.wording import argument
from stabdiag.finding import Finding, Fix
from stabdiag.trace import Trace
from stabdiag.trace.formats import FORMATS
from stabdiag.trace.ops import Limit, limits

KIND = "expression"
LEVEL = "line"
REMEDIES = (
    *("bce-with-logits", "cancel-log-exp", "clamp-exponent", "bounded-logarithm", "float32-island", "guarded-division"),
    *("guarded-log", "guarded-root", "larger-epsilon", "log-softmax", "log1p-domain", "logsigmoid", "logsumexp"),
    *(
        "module-epsilon",
        "positive",
        "sanitise-input",
        "sigmoid",
        "slogdet",
        "softmax",
        "small-argument",
        "sum-of-logs",
        "xlogy",
    ),
)
explains = ("SD704",)

_WHAT = {LOGARITHM: "logarithm of", QUOTIENT: "division by", POWER: "power of", ROOT: "root of"}


def check(trace: Trace, *, within: float = 10.0) -> Iterator[Finding]:
    """One finding per line."""
    for found in judgements(trace, LOGARITHM, QUOTIENT, POWER, ROOT, within=within):
        if found.expression.form == ROOT and not found.leaves_domain:  # SD606
            continue
        operand = argument(found.op)
        shown = f"`{operand}`" if operand else "a value"
        kept, label = _bound(found)
        yield found.finding(
            f"{_WHAT[found.expression.form]} {shown}, which nothing keeps {kept}: it has {found.observed()} here, and it "
            f"breaks {found.limits()}",
            label,
            _fixes(found),
        )


def _bound(found: Judgement) -> tuple[str, str]:
    """What should keep the operand inside, and what it can do, in words."""
    danger = found.run.ops[found.expression.danger]
    (end, *_) = limits(danger.name, danger.attributes, FORMATS["float32"]) or (Limit(0.0, "below", "value"),)
    if end.side == "at":
        return f"from {end.at:g}", f"can pass {end.at:g}"
    return f"above {end.at:g}", "can be negative" if end.at == 0 else f"can fall below {end.at:g}"


def _fixes(found: Judgement) -> list[Fix]:
    if found.determinant:
        return [Fix("slogdet", "use `torch.linalg.slogdet`, which never forms the determinant")]
    if found.learned:
        return [Fix("log-parameter", "learn the logarithm of the parameter and take its exponential")]
    if found.expression.form == QUOTIENT:
        guarded = Fix("guarded-division", "keep the denominator from 0")
        return [guarded] if found.touches else [guarded, Fix("positive", "make it positive")]
    if found.expression.form in (POWER, ROOT):
        return [Fix("guarded-root", "keep the base from 0")]
    cause = found.cause
    if cause is not None and cause.name == "exp":
        return [Fix("cancel-log-exp", "work with the logarithm itself")]
    return [
        Fix("guarded-log", "keep the operand from 0"),
        Fix("positive", "make it positive"),
        Fix("xlogy", "x·log x that is 0 at 0"),
    ]
