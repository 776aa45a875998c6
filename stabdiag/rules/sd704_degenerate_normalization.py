"""A normalisation over too few elements, or over channels that do not vary.

## What it does
For every batch, group, instance and layer normalisation, counts the elements that one mean and variance are taken over. One
element is an error (x minus its own mean is 0: the layer forgets its input), two are a warning, fewer than `few` are
information (the probe batch may be smaller than the one you train with). For batch normalisation in train mode it also measures
the variance of every channel over the batch: one note for the model, at the flattest layer, when more than `flat_share` of a
layer's channels vary less than 10·eps, where eps decides the result instead of the statistics.

## Why it matters
Statistics over n elements carry a relative error of about √(2/n); at n = 2 the output is ±1 whatever the input. A channel
without variance passes nothing but rounding noise, and its running variance near 0 multiplies inputs by 1/√eps in evaluation.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(8, 1)
        self.norm = nn.LayerNorm(1)
        self.out = nn.Linear(1, 3)

    def forward(self, x):
        return self.out(self.norm(self.score(x)))  # expect: SD704


def example_inputs():
    return torch.randn(16, 8)
```

## Good
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(8, 32)
        self.norm = nn.LayerNorm(32)
        self.out = nn.Linear(32, 3)

    def forward(self, x):
        return self.out(self.norm(self.score(x)))


def example_inputs():
    return torch.randn(16, 8)
```

## What it does not detect
Batch normalisation over one element per channel in train mode is refused by torch itself. Normalisations written by hand.
Channels that are constant because their input is padding count like others.

## Thresholds
- `few` = 16: below it statistics have more than 35 % relative error.
- `flat_share` = 0.5: share of channels whose variance is below 10·eps. It stays information: published mobile networks that
  start every convolution at a standard deviation of 0.02 reach variances of 1e-9 in most of their layers, and train.

## References
Ioffe & Szegedy 2015 (arXiv:1502.03167); Wu & He 2018, Group Normalization
(arXiv:1803.08494), figure 1: error against batch size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from stabdiag.evidence.graph.author_line import line_of_op
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.rule import Measurement
from stabdiag.trace import Op, Run, Trace

KIND = "start"
LEVEL = "layer"
REMEDIES = ("group-norm", "module-epsilon", "wider-normalisation")

BATCH = ("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "_batch_norm_with_update")
GROUP = ("native_group_norm",)
LAYER = ("native_layer_norm",)


def flat_channels(inputs: list[Any], output: Any, unit_dim: int | None, attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """How many channels of a batch normalisation in train mode vary less than 10·eps."""
    if not attributes.get("training", attributes.get("train", False)) or inputs[0].dim() < 2:
        return None
    values = inputs[0].detach().float().transpose(0, 1).flatten(1)
    variance = values.var(1, correction=0)
    flat = variance < 10 * attributes.get("eps", 1e-5)
    return {"flat": flat.sum(), "channels": float(flat.numel()), "median_variance": variance.median()}


MEASUREMENTS = (Measurement("flat_channels", BATCH, flat_channels),)


def check(trace: Trace, *, few: int = 16, flat_share: float = 0.5) -> Iterator[Finding]:
    """Judge every normalisation once per place."""
    run = trace.run("float32")
    if run is None:
        return
    seen: set[object] = set()
    flat: list[tuple[float, Op]] = []
    small: list[tuple[int, Op]] = []
    for op in run.phase("forward"):
        if op.name not in (*BATCH, *GROUP, *LAYER) or op.site in seen:
            continue
        seen.add(op.site)
        count = elements(run, op)
        if count is not None and count < few:
            small.append((count, op))
        if (fact := op.facts.get("flat_channels")) and fact["flat"] / fact["channels"] > flat_share:
            flat.append((fact["median_variance"], op))
    for count, op in small:
        if count <= 2:
            yield _few(trace, op, count)
    if small and min(count for count, _ in small) > 2:
        yield _few(trace, *min(small, key=lambda s: (s[0], s[1].index))[::-1])
    if flat:
        yield _flat(trace, run, min(flat, key=lambda f: (f[0], f[1].index))[1], len(flat))


def elements(run: Run, op: Op) -> int | None:
    """How many elements one mean is taken over; None when the op does not say, or batch statistics are not used."""
    shape = run.values[op.inputs[0]].shape
    if op.name in LAYER:
        normalised = op.attributes.get("normalized_shape")
        return prod(normalised) if normalised else None
    if op.name in GROUP:
        groups = op.attributes.get("group") or op.attributes.get("num_groups")
        return prod(shape[1:]) // int(groups) if groups else None
    if not op.attributes.get("training", op.attributes.get("train", False)) or len(shape) < 2 or not shape[1]:
        return None
    return prod(shape) // shape[1]


def _few(trace: Trace, op: Op, count: int) -> Finding:
    severity = Severity.ERROR if count == 1 else Severity.WARNING if count == 2 else Severity.INFO
    effect = f"relative error of the variance about {(2 / count) ** 0.5:.0%}"
    if count == 1:
        effect = "its output is 0 whatever its input"
    fixes = [
        Fix("wider-normalisation", "normalise over more elements, such as all features"),
        Fix("group-norm", "use GroupNorm, whose statistics do not depend on the batch"),
    ]
    return _at(
        trace,
        op,
        severity,
        f"`{op.name}` takes its mean and variance over {count} element{'s' if count > 1 else ''}: {effect}",
        f"{count} element{'s' if count > 1 else ''} per mean",
        {"elements": count},
        fixes,
    )


def _flat(trace: Trace, run: Run, op: Op, layers: int) -> Finding:
    fact, eps = op.facts["flat_channels"], op.attributes.get("eps", 1e-5)
    share = fact["flat"] / fact["channels"]
    message = (
        f"{share:.0%} of the channels that `{op.name}` normalises vary less than 10·eps = {10 * eps:.0e} over the batch "
        f"(median variance {fact['median_variance'] / max(1, run.batches):.1e}); {layers} layers do"
    )
    fixes = [
        Fix("kaiming-init", "initialise the layer in front with the right gain"),
        Fix("module-epsilon", "keep eps below the variance it guards"),
    ]
    evidence = {"share": share, "channels": fact["channels"], "eps": eps, "layers": layers}
    return _at(trace, op, Severity.INFO, message, "eps decides the result", evidence, fixes)


def _at(
    trace: Trace, op: Op, severity: Severity, message: str, label: str, evidence: dict[str, Any], fixes: list[Fix]
) -> Finding:
    where = at(op) | {"location": op.location if op.location and not op.location.library else line_of_op(trace, op)}
    evidence |= {"op_index": op.index, "layer": op.layer}
    return Finding(severity, message, label=label, precisions=["float32"], evidence=evidence, fixes=fixes, **where)
