"""A softmax that is one-hot from the start.

## What it does
Counts the rows whose largest probability is exactly 1 in the format: every other logit lies more than 16.6 (float32), 6.2
(bfloat16) or 8.3 (float16) below. A warning above `share` of the rows with at least two unmasked keys, on a model as
initialised, unless it passes after two optimizer steps; information where the weights may be trained.

## Why it matters
The derivative p·(1-p) is exactly 0 in such a row: neither the logits nor anything in front of them learns.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.route, self.experts = nn.Linear(8, 6), nn.Linear(8, 6)
        nn.init.normal_(self.route.weight, std=20.0)

    def forward(self, x):
        weights = torch.softmax(self.route(x), dim=-1)  # expect: SD402
        return (weights * self.experts(x)).sum(-1)


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 8, generator=torch.Generator().manual_seed(1)),)


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
        self.route, self.experts = nn.Linear(8, 6), nn.Linear(8, 6)
        nn.init.normal_(self.route.weight, std=0.3)

    def forward(self, x):
        weights = torch.softmax(self.route(x), dim=-1)
        return (weights * self.experts(x)).sum(-1)


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return output.square().mean()
```

## What it does not detect
Rows with one unmasked key, which are one-hot by construction, softmax over a single element (SD612), log-softmax (its
gradient is p - y, which does not vanish), and near-saturation (SD405).

## Thresholds
- `share` = 0.5: of the rows. 68 healthy models (`benchmarks/detection/thresholds.py`): 75 % quantile 0, largest 0.34.
- `least_rows` = 16: sampled rows below which nothing is claimed.

## References
Vaswani et al. 2017, Attention Is All You Need, section 3.2.1 (arXiv:1706.03762).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

from stabdiag.evidence.graph.author_line import line_of_op
from stabdiag.evidence.graph.softmax import MEASUREMENTS as MEASUREMENTS
from stabdiag.evidence.graph.softmax import as_initialised, made_large, projections, softmaxes
from stabdiag.evidence.signal.units import sites
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Run, Trace

KIND = "attention"
LEVEL = "op"
REMEDIES = ("qk-norm", "qk-norm-function", "scale-logits", "soft-cap", "xavier-init")


def check(trace: Trace, *, share: float = 0.5, least_rows: int = 16) -> Iterator[Finding]:
    """Judge every softmax of every precision of the model as built."""
    severity = Severity.WARNING if as_initialised(trace) else Severity.INFO

    def still(other: Run, key: tuple[Any, ...]) -> Severity | Literal[False] | None:
        site = sites(other, "softmax", "softmax-by-hand").get(key)
        return None if site is None else severity if site.facts["one_hot"] > share * site.facts["rows"] else False

    for run in trace.runs:
        if run.seed or run.step or run.precision == "float64":
            continue
        for softmax in softmaxes(run):
            sharp = softmax.site.facts["one_hot"]
            if softmax.rows < least_rows or sharp <= share * softmax.rows:
                continue
            yield Finding(
                severity,
                f"{sharp / softmax.rows:.0%} of the softmax rows are one-hot: their largest probability is exactly 1",
                precisions=[run.precision],
                label=f"{sharp / softmax.rows:.0%} of the rows are one-hot",
                still=partial(still, key=softmax.site.key) if run.precision == "float32" else None,
                evidence={
                    "one_hot_share": sharp / softmax.rows,
                    "rows": softmax.rows,
                    "op_index": softmax.op.index,
                    **projections(softmax),
                },
                fixes=[
                    Fix("scale-logits", "divide the scores by the square root of the head's width"),
                    Fix("qk-norm", "normalise queries and keys"),
                ],
                **at(softmax.op) | {"location": line_of_op(trace, made_large(softmax))},
            )
