"""A loss applies softmax or sigmoid to what is their result already, or is given no logarithms where it wants those.

## What it does
Follows the operand of a loss back through views. Warning: the output of a softmax or sigmoid goes into a cross-entropy or a
binary cross-entropy with logits, which apply softmax and sigmoid once more. Error: what goes into `nll_loss`, `ctc_loss` or
`kl_div` holds values above 0, which no logarithm of a probability is: raw logits, or probabilities.

The finding states the bound below which the loss cannot fall. With logits between 0 and 1, that of C classes reaches at best
ln(e + C - 1) - 1, whatever the targets; a binary one ln 2 where the target is 0 and ln(1 + 1/e) = 0.31 where it is 1. A loss
without the logarithm has no lower bound.

## Why it matters
Training works, a little: the gradient is damped by the second softmax, the loss stalls at its bound, and nothing raises. With
raw logits `nll_loss` falls forever and its optimum is no classifier.

## Bad
```python
import torch
import torch.nn.functional as F
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4), nn.Softmax(dim=-1))


def example_inputs():
    return (torch.randn(32, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return F.cross_entropy(output, torch.arange(32) % 4)  # expect: SD613
```

## Good
```python
import torch
import torch.nn.functional as F
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def example_inputs():
    return (torch.randn(32, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return F.cross_entropy(output, torch.arange(32) % 4)
```

## What it does not detect
A softmax whose result is scaled before the loss (a temperature), log_softmax applied twice (it changes nothing the second
time), and losses written by hand. Negative numbers that do not add up to one as probabilities (log-sigmoids of one class
against the rest) are a choice.

## Thresholds
- `above` = 1e-3: largest value that rounding and an epsilon inside a logarithm leave of the logarithm of a probability.

## References
- PyTorch documentation: `torch.nn.CrossEntropyLoss` ("the input is expected to contain the unnormalized logits"),
  `torch.nn.BCEWithLogitsLoss`, `torch.nn.NLLLoss` and `torch.nn.KLDivLoss` (log-probabilities).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import e, exp, log, log1p

from stabdiag.evidence.signal.units import probed
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Op, Run, Trace

KIND = "expression"
LEVEL = "line"
REMEDIES = ("cross-entropy-of-scores", "pass-logits")

_SQUASHES = {"_softmax": "softmax", "sigmoid": "sigmoid", "sigmoid_": "sigmoid"}
_LIKELIHOODS = ("nll_loss_forward", "nll_loss2d_forward", "nll_loss_nd", "_ctc_loss")


def check(trace: Trace, *, above: float = 1e-3) -> Iterator[Finding]:
    """One finding per line of a loss."""
    run = trace.run("float32")
    if run is None:
        return
    seen: set[object] = set()
    for op in run.phase("forward", "loss"):
        found = _twice(trace, run, op) or _no_logarithm(trace, run, op, above)
        line = found and found.location and (found.location.path, found.location.line)
        if found is not None and line not in seen:
            seen.add(line)
            yield found


def _twice(trace: Trace, run: Run, op: Op) -> Finding | None:
    """Probabilities in a loss that makes them."""
    if op.name == "binary_cross_entropy_with_logits":
        target = run.values[run.behind_views(op.inputs[1])].stats
        positive = min(1.0, max(0.0, target.mean)) if target is not None and target.sampled else 0.5
        bound, again = positive * log1p(exp(-1.0)) + (1.0 - positive) * log(2.0), "sigmoid"
        plain = len(op.inputs) == 2  # weights move the bound
    elif op.name == "_log_softmax" and _in_a_loss(run, op):
        classes = run.values[op.inputs[0]].shape[int(op.attributes.get("dim", -1))]
        bound, again, plain = log(e + classes - 1) - 1, "softmax", True
    else:
        return None
    squashed = run.producer(run.behind_views(op.inputs[0]))
    if squashed is None or squashed.name not in _SQUASHES:
        return None
    first = _SQUASHES[squashed.name]
    place = trace.place(squashed)
    where = f" ({place.path}:{place.line})" if place is not None else ""
    floor = f": it cannot fall below {bound:.3g}, and the gradient is damped" if plain else ", and the gradient is damped"
    return Finding(
        Severity.WARNING,
        f"the loss applies {again} to what is the result of a {first} already{where}{floor}",
        **at(op),
        precisions=probed(trace),
        label=f"{again} of a {first}",
        evidence={"op_index": op.index, "bound": bound if plain else None},
        fixes=[Fix("pass-logits", f"give the loss the logits, without the {first}")],
    )


def _in_a_loss(run: Run, op: Op) -> bool:
    """Whether an op belongs to a loss: the file's, or one that the model computes and returns."""
    if op.phase == "loss":
        return True
    readers = [(op, op.outputs[0])]
    for _, value in readers:
        readers += [(reader, reader.outputs[0]) for reader in run.consumers(value) if reader.view and reader.outputs]
    return any(reader.name in _LIKELIHOODS for _, value in readers for reader in run.consumers(value))


def _no_logarithm(trace: Trace, run: Run, op: Op, above: float) -> Finding | None:
    """Values above 0 where the logarithms of probabilities belong."""
    given = op.inputs[0] if op.name in _LIKELIHOODS else _log_of_divergence(run, op)
    stats = run.values[run.behind_views(given)].stats if given is not None else None
    if given is None or stats is None or not stats.sampled or not stats.max > above:
        return None
    probabilities = stats.min >= 0.0 and stats.max <= 1.0 + above
    what = "probabilities, not their logarithms" if probabilities else "raw scores, no logarithms of probabilities"
    return Finding(
        Severity.ERROR,
        f"`{op.name.removesuffix('_forward').lstrip('_')}` is given {what} (up to {stats.max:.3g}; a logarithm ends at 0): "
        + ("its gradient is that of no likelihood" if probabilities else "the loss has no lower bound"),
        **at(op),
        precisions=probed(trace),
        label="wants logarithms of probabilities",
        evidence={"op_index": op.index, "largest": stats.max, "smallest": stats.min},
        fixes=[Fix("cross-entropy-of-scores", "give it the log_softmax of the scores, which is cross_entropy")],
    )


def _log_of_divergence(run: Run, op: Op) -> int | None:
    """The second operand of kl_div, xlogy(t, t) - t·x, where an op is its difference."""
    if op.name != "sub" or len(op.inputs) != 2:
        return None
    entropy, cross = (run.producer(run.behind_views(i)) for i in op.inputs)
    if entropy is None or cross is None or entropy.name != "xlogy" or cross.name != "mul" or len(cross.inputs) != 2:
        return None
    target = run.behind_views(entropy.inputs[0])
    others = [i for i in cross.inputs if run.behind_views(i) != target]
    return others[0] if len(others) == 1 and run.behind_views(entropy.inputs[1]) == target else None
