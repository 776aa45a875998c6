"""Softmax probabilities that are exactly 0 although their keys are not masked.

## What it does
Counts unmasked probabilities that underflowed to exactly 0: the logit lies more than 104 (float32), 92.7 (bfloat16) or 17.3
(float16) below the largest of its row. An error where a logarithm reads them or a division divides by them (followed through
the graph, with indexing in between) and zeros reach it; a warning where more than `zero_share` of the unmasked probabilities
are 0 and the mean row entropy is below `entropy` of its maximum. A softmax written as exp(z)/sum(exp(z)) counts alike.

## Why it matters
log(0) is -inf and 1/0 is inf; the loss is gone at the first such row. Without a logarithm the zeros only say that the softmax
has stopped being soft: no gradient flows to any key but one.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 6)
        nn.init.normal_(self.body.weight, std=60.0)

    def forward(self, x):
        return torch.softmax(self.body(x), dim=1)


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (1.0 / output[:, 0]).mean()  # importance weights  # expect: SD401
```

## Good
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 6)

    def forward(self, x):
        return torch.log_softmax(self.body(x), dim=1)


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return -output[:, 0].mean()
```

## What it does not detect
A logarithm of a softmax is SD601's finding where the expression is recognised; this one is then its evidence. A logarithm
behind a guard (an epsilon added, a clamp) is not followed: the value is finite there, SD505 and SD601 judge the
guard. Zeros of masked keys are meant.

## Thresholds
- `zero_share` = 0.5: of the unmasked probabilities.
- `entropy` = 0.1: mean row entropy over ln T, T the number of unmasked keys.
- `least_rows` = 16: sampled rows below which the warning is not given.

## References
Blanchard, Higham & Higham 2021, Accurately computing the log-sum-exp and softmax functions (IMA J. Numer. Anal. 41).
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.graph.author_line import line_of_op
from stabdiag.evidence.graph.softmax import MEASUREMENTS as MEASUREMENTS
from stabdiag.evidence.graph.softmax import Softmax, as_initialised, made_large, readers, softmaxes
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Op, Run, Trace

KIND = "attention"
LEVEL = "op"
REMEDIES = ("cross-entropy", "log-softmax", "scale-logits", "small-output-init")
explains = ("SD402",)
LOGARITHMS = ("log", "log2", "log10", "xlogy")


def check(trace: Trace, *, zero_share: float = 0.5, entropy: float = 0.1, least_rows: int = 16) -> Iterator[Finding]:
    """Judge every softmax of every precision of the model as built."""
    for run in trace.runs:
        if run.seed or run.step or run.precision == "float64":
            continue
        for softmax in softmaxes(run):
            zeros, keys = softmax.zeros, softmax.site.facts.get("keys", 0)
            if not zeros:
                continue
            consumers = [op for each in softmax.site.ops for op in _consumers(run, each)]
            mean = softmax.entropy
            flat = zeros > zero_share * keys and mean is not None and mean < entropy and softmax.rows >= least_rows
            if consumers:
                yield _finding(trace, softmax, Severity.ERROR, zeros / keys, consumers)
            elif flat and as_initialised(trace):
                yield _finding(trace, softmax, Severity.WARNING, zeros / keys, [])


def _consumers(run: Run, op: Op) -> list[Op]:
    """What takes the logarithm of zeros of this softmax, or divides by them."""
    found = readers(run, op.outputs[0], (*LOGARITHMS, "reciprocal", "div"))
    return [user for user in found if _reads_zeros(run, user, run.behind_views(op.outputs[0]))]


def _reads_zeros(run: Run, user: Op, probabilities: int) -> bool:
    if user.name == "div" and (len(user.inputs) < 2 or run.behind_views(user.inputs[1]) != probabilities):
        return False
    read = run.values[user.inputs[-1 if user.name in ("div", "xlogy") else 0]]
    return read.stats is None or read.stats.zeros > 0


def _finding(trace: Trace, softmax: Softmax, severity: Severity, share: float, consumers: list[Op]) -> Finding:
    op = softmax.op
    notes, line = [], line_of_op(trace, op)
    place = line_of_op(trace, made_large(softmax))
    if consumers:
        place = consumers[0].location or line_of_op(trace, consumers[0])
    if consumers and line is not None:
        notes.append(f"evidence: the softmax is at {line.path.rpartition('/')[2]}:{line.line}")
    fixes = [
        Fix("log-softmax", "take the logarithm inside: it never sees the 0"),
        Fix("cross-entropy", "give the loss the logits"),
    ]
    if not consumers:
        fixes = [Fix("scale-logits", "divide the logits by the square root of their width")]
    return Finding(
        severity,
        f"{share:.1%} of the unmasked softmax probabilities are exactly 0"
        + (f", and `{consumers[0].name}` reads them" if consumers else ""),
        precisions=[softmax.run.precision],
        label=f"{share:.1%} of the probabilities are 0",
        notes=notes,
        evidence={
            "zero_share": share,
            "rows": softmax.rows,
            "entropy_share": softmax.entropy,
            "op_index": op.index,
            "reaches": [op.index, *(user.index for user in consumers)],
        },
        fixes=fixes,
        **at(op) | {"location": place},
    )
