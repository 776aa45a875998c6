"""Many units of a ReLU layer that are almost silent next to their neighbours.

## What it does
Compares the mean activation E|a_i| of each unit of a ReLU layer with the median over the layer's units. A unit is dormant
when E|a_i| ≤ `ratio` · median; as many units as are always on are subtracted, because a layer that the data hardly moves has
as many off (SD201). A warning needs the lower 95 % bound (Wilson) of the dormant share above `share`, as built and after two
optimizer steps. The median is used because a few massive activations inflate a mean.

## Why it matters
Dormant units cost as much as the others and add next to nothing: the layer has less capacity than its width says, and the
share tends to grow during training.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 64), nn.Linear(64, 1)
        self.register_buffer("importance", torch.cat([torch.full((28,), 1e-3), torch.ones(36)]))

    def forward(self, x):
        return self.down(torch.relu(self.up(x) * self.importance))  # expect: SD204


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(512, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean()
```

## Good
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 64), nn.Linear(64, 1)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(512, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean()
```

## What it does not detect
Layers of which half the units or more are silent (SD201), units behind other activations, and layers seen on fewer than
`least_samples` effective samples, where half of the units can be off because the samples are alike.

## Thresholds
- `ratio` = 0.025: of the median activation.
- `share` = 0.3: of the layer's units.
- `least_samples` = 300: effective samples, at which a unit that was never seen to fire does so on less than 1 %.
- `least_units` = 16.

## References
Sokar et al. 2023, The Dormant Neuron Phenomenon in Deep Reinforcement Learning (arXiv:2302.12902), with the mean in place of
the median; Sun et al. 2024, Massive Activations in Large Language Models (arXiv:2402.17762).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import Any, Literal

from stabdiag.evidence.graph.author_line import line_of_op
from stabdiag.evidence.graph.nonlinearity import RELU_OPS, is_relu
from stabdiag.evidence.measure.units import relu_facts
from stabdiag.evidence.signal.units import Site, batch_size, effective_samples, probed, sites, wilson_lower
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.rule import Measurement
from stabdiag.trace import Run, Trace

KIND = "activation"
LEVEL = "layer"
REMEDIES = ("batch-norm", "elu", "gelu", "kaiming-init", "layer-norm", "leaky-relu", "leaky-relu-function", "prelu", "silu")

MEASUREMENTS = (Measurement("relu", RELU_OPS, relu_facts, where=is_relu),)


def check(
    trace: Trace, *, ratio: float = 0.025, share: float = 0.3, least_samples: int = 300, least_units: int = 16
) -> Iterator[Finding]:
    """Judge every ReLU site as built, and again after two optimizer steps."""
    run = trace.run("float32")
    if run is None:
        return

    def judge(site: Site | None) -> Severity | Literal[False] | None:
        dormant = _dormant(site, ratio) if site is not None else None
        if site is None or dormant is None:
            return None
        return Severity.WARNING if wilson_lower(dormant, len(site.facts["fired"])) > share else False

    def still(other: Run, key: tuple[Any, ...]) -> Severity | Literal[False] | None:
        return judge(sites(other, "relu").get(key))

    for key, site in sites(run, "relu").items():
        samples = effective_samples(site.facts["rows"], batch_size(run), site.calls * run.batches)
        units = len(site.facts["fired"])
        if samples < least_samples or units < least_units or _broken(run, site):
            continue
        if not judge(site):
            continue
        dormant = _dormant(site, ratio)
        op = site.op
        name = op.layer or op.module
        yield Finding(
            Severity.WARNING,
            f"{dormant} of {units} units behind `{name}` are dormant: mean activation below {ratio:g} of the layer's median",
            precisions=probed(trace),
            label=f"{dormant} of {units} units are dormant",
            still=partial(still, key=key),
            evidence={"units": units, "dormant": dormant, "effective_samples": samples, "op_index": op.index},
            fixes=[
                Fix("kaiming-init", "initialise all units alike"),
                Fix("layer-norm", "normalise the pre-activation"),
            ],
            **at(op) | {"location": line_of_op(trace, op), "module": op.layer or op.module},
        )


def _dormant(site: Site, ratio: float) -> int | None:
    """How many more units are dormant than always on; None where the median itself is 0 (SD201's business)."""
    middle = median(site.facts["activity"])
    steady = sum(n == site.calls for n in site.facts["steady"])
    return max(0, sum(a <= ratio * middle for a in site.facts["activity"]) - steady) if middle > 0 else None


def _broken(run: Run, site: Site) -> bool:
    values = [run.output_of(op) for op in site.ops]
    return any(v is None or v.stats is None or v.stats.nonfinite for v in values)
