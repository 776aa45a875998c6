"""Attention whose every query looks at one key from the start.

## What it does
Mean entropy of the attention rows of each head over ln T, T the number of unmasked keys of the row, in the model as
initialised. A warning where it is below `warning` for more than `share` of an attention's heads, an error where it is below
`error` for all of them, as built and after two optimizer steps.

## Why it matters
A head that starts one-hot passes almost no gradient to queries and keys, and what it picks is chance. Collapsed entropy goes
along with divergence in training.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 64), nn.Linear(8, 64), nn.Linear(8, 64)
        for layer in (self.q, self.k):
            nn.init.normal_(layer.weight, std=1.0)

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        scores = q @ k.transpose(1, 2)  # expect: SD405
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
Sharp heads of trained models, which attend to one token on purpose: where weights were loaded it is information. Softmax that
is no attention (routers, classifiers). Rows with fewer than two unmasked keys.

## Thresholds
- `warning` = 0.15 and `share` = 0.5: of the heads. Unscaled heads of width 128 over 24 keys keep 0.12: 1.5 keys of 24.
- `error` = 0.05: all heads. 65 healthy models (`benchmarks/detection/thresholds.py`): median 1.0, 25 % 0.97, smallest
  0.22; 0.0004 to 0.022 where the scale was left out.
- `least_rows` = 16: sampled rows below which nothing is claimed.

## References
Zhai et al. 2023, Stabilizing Transformer Training by Preventing Attention Entropy Collapse (arXiv:2303.06296).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

from stabdiag.evidence.graph.author_line import line_of_op
from stabdiag.evidence.graph.softmax import MEASUREMENTS as MEASUREMENTS
from stabdiag.evidence.graph.softmax import Softmax, as_initialised, made_large, projections, softmaxes
from stabdiag.evidence.signal.units import batch_size, probed
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Run, Trace

KIND = "attention"
LEVEL = "op"
REMEDIES = ("qk-norm", "qk-norm-function", "scale-logits", "xavier-init")
explains = ("SD401", "SD402")


def check(
    trace: Trace, *, warning: float = 0.15, error: float = 0.05, share: float = 0.5, least_rows: int = 16
) -> Iterator[Finding]:
    """Judge every attention of the model as built, and again after two optimizer steps."""
    run = trace.run("float32")
    if run is None:
        return

    def judge(softmax: Softmax | None) -> Severity | Literal[False] | None:
        heads = softmax.head_entropies(batch_size(softmax.run)) if softmax is not None else []
        if softmax is None or softmax.rows < least_rows or not heads:
            return None
        if all(h < error for h in heads):
            return Severity.ERROR
        return Severity.WARNING if sum(h < warning for h in heads) > share * len(heads) else False

    def still(other: Run, key: tuple[Any, ...]) -> Severity | Literal[False] | None:
        return judge(next((s for s in softmaxes(other) if s.site.key == key), None))

    for softmax in softmaxes(run):
        severity = judge(softmax)
        if not severity or softmax.scores is None:
            continue
        if not as_initialised(trace):
            severity = Severity.INFO
        heads = softmax.head_entropies(batch_size(run))
        yield Finding(
            severity,
            f"the attention rows keep {sum(heads) / len(heads):.2g} of the possible entropy (mean of {len(heads)} heads)",
            precisions=probed(trace),
            label=f"entropy {sum(heads) / len(heads):.2g} of its maximum",
            still=partial(still, key=softmax.site.key),
            fades=Severity.INFO,
            evidence={
                "entropy_share": [round(h, 6) for h in heads],
                "rows": softmax.rows,
                "op_index": softmax.op.index,
                **projections(softmax),
            },
            fixes=[
                Fix("scale-logits", "divide the scores by the square root of the head's width"),
                Fix("xavier-init", "initialise queries and keys at gain 1"),
                Fix("qk-norm", "normalise queries and keys"),
            ],
            **at(softmax.op) | {"location": line_of_op(trace, made_large(softmax))},
        )
