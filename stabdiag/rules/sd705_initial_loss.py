"""A first loss far above what guessing would cost.

## What it does
Where the author's own loss ends in a cross-entropy over C classes (torch's, or the mean of the log-probabilities picked from a
log-softmax), compares its value on the first batch with ln C, the loss of
a model that knows nothing and says so. A warning when it is more than `above` nats higher.

## Why it matters
Logits of a fresh network should differ by less than 1. When they do not, it is sure of random answers: the first steps are
spent on unlearning them, with gradients near their maximum, and a softmax that is saturated learns slowly. The usual causes are
a last layer (or a tied embedding) with too large weights, and inputs that were not normalised. It costs steps, seldom the run,
so it is never an error.

## Bad
```python
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(16, 64), nn.Linear(64, 10)
        nn.init.normal_(self.head.weight, std=2.0)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))


def example_inputs():
    return torch.randn(40, 16, generator=torch.Generator().manual_seed(0))


def loss(logits):
    return F.cross_entropy(logits, torch.arange(40) % 10)  # expect: SD705
```

## Good
```python
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(16, 64), nn.Linear(64, 10)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x)))


def example_inputs():
    return torch.randn(40, 16, generator=torch.Generator().manual_seed(0))


def loss(logits):
    return F.cross_entropy(logits, torch.arange(40) % 10)
```

## What it does not detect
A loss below ln C (a trained model, an imbalanced data set). Losses that are inferred, summed over samples, or no cross-entropy.
Focal losses and priors in the bias start elsewhere on purpose and are not cross-entropies to this rule. Nor is a margin
judged that the model takes from the logit of the label (ArcFace, CosFace): told by the labels' logits, which lie below those of
the other classes by more than four standard errors over the classes; wild logits are as often above. Nor are products of
normalised vectors times a temperature: how sharp they are is chosen, and a cosine head with too small a factor cannot learn
(Wang et al. 2017, NormFace, arXiv:1704.06369).

## Thresholds
- `above` = 1.0 nat over ln C. For logits of standard deviation s the expected excess is s²/2: 1 nat is s = 1.4. Default
  initialisations of torch give s below 0.6, GPT-2's tied embedding (std 0.02, width 768) 0.55.
- `least_samples` = 8: labels below which the mean says nothing.

## References
Karpathy 2019, A Recipe for Training Neural Networks ("verify loss @ init").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import log, prod, sqrt
from typing import Any

from stabdiag.evidence.graph.author_line import line_of_op
from stabdiag.evidence.graph.origin import enlarged_by
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.rule import Measurement
from stabdiag.trace import Op, Run, Trace

KIND = "start"
LEVEL = "model"
REMEDIES = ("final-norm", "small-output-init", "standardise-input")

MEAN = 1  # torch's code of the reduction
LEAST_CLASSES, ROWS = 4, 512
UNIT = 1.01  # root mean square length of vectors that a normalisation makes, with what sampling leaves of doubt


def _label_gap(inputs: list[Any], output: Any, unit_dim: int | None, attributes: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How far the log-probability of the label lies from the mean of the other classes, over at most `ROWS` samples: number of
    classes among the labels, sum and sum of squares of their averages."""
    if inputs[0].dim() != 2 or inputs[0].shape[1] < LEAST_CLASSES:
        return None
    step = -(-inputs[0].shape[0] // ROWS)
    log_p, labels = inputs[0].detach()[::step].double(), inputs[1].detach()[::step]
    classes = log_p.shape[1]
    counted = ((labels >= 0) & (labels < classes)).double()
    labels = labels.clamp(0, classes - 1)
    own = log_p.gather(1, labels[:, None]).squeeze(1)
    gap = (own - (log_p.sum(1) - own) / (classes - 1)) * counted
    count = counted.new_zeros(classes).index_add_(0, labels, counted)
    each = counted.new_zeros(classes).index_add_(0, labels, gap) / count.clamp(min=1)
    return {"classes": (count > 0).sum(), "gap": each.sum(), "gap_sq": each.square().sum()}


MEASUREMENTS = (Measurement("label-gap", ("nll_loss_forward",), _label_gap),)


def check(trace: Trace, *, above: float = 1.0, least_samples: int = 8) -> Iterator[Finding]:
    """Judge every cross-entropy of a declared loss."""
    run = trace.run("float32")
    if run is None or "loss" not in trace.subject.declared:
        return
    for op in run.phase("loss"):
        found = _cross_entropy(run, op)
        value = run.output_of(op)
        if found is None or value is None or value.stats is None or value.stats.nonfinite:
            continue
        classes, samples, logits = found
        start = abs(value.stats.mean)
        factor = enlarged_by(run, logits)
        if (
            samples >= least_samples
            and start > log(classes) + above
            and not _has_margin(op)
            and not _of_unit_length(run, logits)
        ):
            yield Finding(
                Severity.WARNING,
                f"the first loss is {start:.3g}; guessing among {classes} classes costs ln {classes} = {log(classes):.3g}",
                precisions=["float32"],
                label=f"{start - log(classes):.2g} nats above guessing",
                notes=["cause: the logits of the fresh model differ too much, so it is sure of random answers"],
                evidence={"loss": start, "classes": classes, "op_index": op.index, "whole_model": True},
                fixes=[
                    Fix("small-output-init", "start the last layer small"),
                    Fix("standardise-input", "standardise the inputs"),
                ],
                **at(op) | ({"location": line_of_op(trace, factor)} if factor is not None else {}),
            )


def _has_margin(op: Op) -> bool:
    """Whether the labels' own logits are low throughout, four standard errors over the classes: a margin that the model takes
    from them (ArcFace, CosFace), which costs guessing more than ln C."""
    fact = op.facts.get("label-gap")
    if fact is None or fact["classes"] < LEAST_CLASSES:
        return False
    n, mean = fact["classes"], fact["gap"] / fact["classes"]
    variance = max(0.0, fact["gap_sq"] / n - mean * mean) / (n - 1)
    return bool(mean < 0 and mean * mean > 16 * variance)


def _of_unit_length(run: Run, logits: int) -> bool:
    """Whether logits are products of vectors no longer than 1, times a factor: how sharp they may get is then chosen."""
    product = run.producer(_before_factors(run, logits))
    if product is None or product.name not in ("mm", "bmm"):
        return False
    width = run.values[product.inputs[0]].shape[-1]
    factors = (run.values[_before_factors(run, i)].stats for i in product.inputs)
    return all(s is not None and s.sampled and s.rms * sqrt(width) <= UNIT for s in factors)


def _before_factors(run: Run, value_id: int) -> int:
    """Go back through views and multiplications by one number."""
    source = run.behind_views(value_id)
    op = run.producer(source)
    if op is None or op.name not in ("mul", "div"):
        return source
    signals = [i for i in op.inputs if prod(run.values[i].shape) > 1]
    return _before_factors(run, signals[0]) if len(signals) == 1 else source


def _cross_entropy(run: Run, op: Op) -> tuple[int, int, int] | None:
    """(classes, labels, id of the logits) of a mean negative log-likelihood of a log-softmax, None for any other op."""
    if op.name in ("nll_loss_forward", "nll_loss2d_forward") and op.attributes.get("reduction") == MEAN and len(op.inputs) > 1:
        made = run.producer(run.behind_views(op.inputs[0]))
        if made is None or made.name != "_log_softmax" or len(run.values[op.inputs[0]].shape) < 2:
            return None
        return run.values[op.inputs[0]].shape[1], prod(run.values[op.inputs[1]].shape), made.inputs[0]
    if op.name != "mean" or op.attributes.get("dim"):
        return None
    made = run.producer(run.behind_views(op.inputs[0]))
    while made is not None and made.name in ("neg", "gather", "index"):
        made = run.producer(run.behind_views(made.inputs[0]))
    if made is None or made.name != "_log_softmax":
        return None
    shape, picked = run.values[made.outputs[0]].shape, prod(run.values[op.inputs[0]].shape)
    classes = shape[made.attributes.get("dim", -1)]
    return (classes, picked, made.inputs[0]) if picked * classes == prod(shape) else None
