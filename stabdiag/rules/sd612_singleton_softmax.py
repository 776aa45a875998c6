"""Softmax over a dimension of size 1.

## What it does
Finds softmax and log_softmax over a dimension of size 1 that counts the units of a layer (its out_features or channels), which
no batch and no sequence length changes.

Error always: the output is 1 (or 0 for log_softmax) whatever goes in, and the gradient is exactly 0.

## Why it matters
Nothing before it is trained, and nothing complains: it is the wrong dimension, or a single logit that wanted a sigmoid.

## Bad
```python
import torch
from torch import nn


class Pool(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(8, 1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        weights = torch.softmax(self.score(x), dim=-1)  # expect: SD612
        return self.fc((weights * x).sum(dim=1))


def build_model():
    torch.manual_seed(0)
    return Pool()


def example_inputs():
    return (torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(1)),)
```

## Good
```python
import torch
from torch import nn


class Pool(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(8, 1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        weights = torch.softmax(self.score(x), dim=1)
        return self.fc((weights * x).sum(dim=1))


def build_model():
    torch.manual_seed(0)
    return Pool()


def example_inputs():
    return (torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(1)),)
```

## What it does not detect
Attention over a single key: the next batch may have more of them.

## Thresholds
None.

## References
- PyTorch documentation, `torch.nn.Softmax` (the sum over `dim` is 1).
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.graph.softmax import product_of_activations
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Run, Trace
from stabdiag.trace.dependence import Dependence, dependence

KIND = "expression"
LEVEL = "line"
REMEDIES = ("right-dimension", "sigmoid-for-softmax")
explains = ("SD101", "SD103", "SD402", "SD405")

_SOFTMAXES = ("_softmax", "_log_softmax", "_safe_softmax")


def check(trace: Trace) -> Iterator[Finding]:
    """One finding per line."""
    run = trace.run("float32")
    if run is None:
        return
    seen = set()
    for op in run.phase("forward", "loss"):
        if op.name not in _SOFTMAXES or op.location is None:
            continue
        logits = run.values[op.inputs[0]]
        dim = int(op.attributes.get("dim", -1)) % max(1, len(logits.shape))
        if not logits.shape or logits.shape[dim] != 1 or not _counts_units(run, dependence(run), op.inputs[0], dim):
            continue
        if (key := (op.location.path, op.location.line)) in seen:
            continue
        seen.add(key)
        constant = "0" if "log" in op.name else "1"
        yield Finding(
            Severity.WARNING if op.location.library else Severity.ERROR,
            f"softmax over dimension {dim} of {'×'.join(map(str, logits.shape))}, which has size 1: the output is always "
            f"{constant} and the gradient 0",
            **at(op),
            precisions=trace.precisions,
            label=f"always {constant}",
            evidence={"op_index": op.index, "dim": dim, "shape": list(logits.shape)},
            fixes=[
                Fix("sigmoid-for-softmax", "a single logit wants a sigmoid"),
                Fix("right-dimension", "or normalise over the other dimension"),
            ],
        )


def _counts_units(run: Run, values: Dependence, value_id: int, dim: int) -> bool:
    """Whether a dimension is that of a layer's units; where views lost track of it, the last one of a matrix product is."""
    value = run.values[value_id]
    if value.unit_dim is not None:
        return value.unit_dim == dim and product_of_activations(run, value_id) is None  # of attention scores it counts keys
    made = values.maker(value_id)
    if made is None or made.name not in ("mm", "addmm") or not values.free(made):
        return False
    return dim == len(value.shape) - 1 and run.values[made.outputs[0]].shape[-1] == 1
