"""A step of a training that runs goes wrong in a way that no rule about the model explains.

## What it does
Only while a training is watched (`stabdiag.watch`, `stabdiag replay`). A loss above the median of the last 200 steps plus 8
median absolute deviations is a spike. The batch of the step before is run with the present weights: where it is fine, the
spike is explained by its sample and is a warning in the journal; where it is not, the weights have gone wrong, which is an
error. A loss or gradient that is not finite is reported here when its step does not repeat (hardware), fails only when
compiled, is born in the optimizer or in a loss that was not seen. The culprit is found by counterfactual reruns.

## Why it matters
After a spike the question is which batch, or which setting, and whether going on is safe. A rerun with one thing changed
answers it while the step can still be undone.

## Bad
```python
import torch
from torch import nn


def train(watch):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recorder = watch(model, optimizer)
    for step in range(60):
        if step == 50:
            optimizer.param_groups[0]["lr"] = 100.0
        x = torch.randn(16, 4)
        with recorder.step():
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()  # expect: SD807
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
```

## Good
```python
import torch
from torch import nn


def train(watch):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recorder = watch(model, optimizer)
    for step in range(60):
        x = torch.randn(16, 4)
        with recorder.step():
            loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
```

## What it does not detect
A slow rise of the loss, which moves the median with it. Anything in the first 30 steps but what is not finite.

## Thresholds
None here: 200 steps, 8 deviations, 30 steps before the first judgement and a deviation of at least 1 % of the median are in
`stabdiag.live.history`, with `benchmarks/watching.py` for healthy trainings.

## References
- Molybog et al. 2023, "A Theory on Adam Instability in Large-Scale Machine Learning", arXiv:2304.09871: spikes that are not
  the batch's doing.
- Chowdhery et al. 2022, "PaLM", arXiv:2204.02311, section 5.1: the same batches do not spike from another checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stabdiag.finding import Finding, Fix, Severity
from stabdiag.rule import rule_in
from stabdiag.trace import Location, Trace

KIND = "live"
LEVEL = "model"

_FIXES = {
    "rate": (
        Fix("lower-learning-rate", "lower the learning rate, or warm up to it"),
        Fix("gradient-clipping", "clip the gradient norm"),
    ),
    "sample": (Fix("finite-data", "look at these samples before the model reads them"),),
    "format": (Fix("float32-island", "compute this step in float32"),),
    "loss": (
        Fix("see-the-loss", "compute the loss inside `with recorder.step(batch):`, or scan this step with `stabdiag run`"),
    ),
    "optimizer": (Fix("optimizer-epsilon", "give the optimizer an epsilon that its format holds"),),
    "compiler": (Fix("run-eagerly", "run this part eagerly (`torch.compiler.disable`) and report the kernel"),),
    "hardware": (Fix("repeat", "run the step again from the capsule on another machine"),),
    "model": (Fix("gradient-clipping", "clip the gradient norm"), Fix("lower-learning-rate", "lower the learning rate")),
}


def check(trace: Trace) -> Iterator[Finding]:
    """Nothing: a trace knows one step. `trip` is called where the steps before it are known."""
    return iter(())


def trip(trace: Trace, facts: dict[str, Any], location: Location | None) -> Finding:
    """The finding for a step that went wrong.

    `facts`: kind ("loss spike", "loss not finite", …), step, loss, gradient_norm, median and limit of the losses (None where
    unknown), culprit, grown (the layer whose gradient grew most since the last sampled step, and by what factor).
    """
    culprit = facts["culprit"]
    spike = facts["kind"] == "loss spike"
    message = f"the {facts['kind']} of step {facts['step']:,}" if spike else f"{facts['kind']} at step {facts['step']:,}"
    if spike:
        message += f": {facts['loss']:.4g}, the limit of the last 200 steps is {facts['limit']:.4g}"
    notes = [f"evidence: {facts['detail']}"] if facts.get("detail") else []
    layer = facts.get("grown")
    if layer:
        notes.append(f"evidence: the gradient of `{layer[0]}` grew most, {layer[1]:.3g}-fold since the last sampled step")
    return rule_in(__name__).finding(
        Severity.WARNING if spike and culprit == "sample" else Severity.ERROR,
        message,
        module=facts.get("module", layer[0] if layer else ""),
        op=facts.get("op", ""),
        phase=facts.get("phase", "step"),
        precisions=[trace.precisions[-1]] if trace.precisions else [],
        location=location,
        label=facts["kind"],
        notes=notes,
        evidence={key: value for key, value in facts.items() if key != "detail"},
        fixes=list(_FIXES[culprit]),
    )
