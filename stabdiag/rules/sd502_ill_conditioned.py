"""The model itself amplifies small changes of its input: no arithmetic can compute it accurately.

## What it does
Runs the model in float64 on its inputs and on the inputs plus noise of 1e-6 of their standard deviation (per tensor; zeros,
integers and masks stay; a model of integer inputs has its parameters moved instead). κ is the relative change of the outputs
over 1e-6: a number without unit. In a format of unit roundoff u the outputs carry a relative error of about u·κ whatever the
algorithm.

## Why it matters
At κ = 256 a float16 run agrees with float32 in no more than three bits. Precisions disagree, runs do not reproduce, and no
fix of single ops helps; a chaotic initialisation (gain too large, orthogonal recurrent weights times 2) is the usual cause.

## Bad
```python
import torch
from torch import nn


class Chaos(nn.Module):
    def __init__(self):
        super().__init__()
        layers = []
        for _ in range(30):
            layer = nn.Linear(64, 64)
            nn.init.normal_(layer.weight, std=2.5 / 64**0.5)  # expect: SD502
            layers += [layer, nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


def build_model():
    torch.manual_seed(0)
    return Chaos()


def example_inputs():
    return (torch.randn(16, 64, generator=torch.Generator().manual_seed(0)),)


def loss(output):
    return output.square().mean()
```

## Good
```python
import torch
from torch import nn


class Calm(nn.Module):
    def __init__(self):
        super().__init__()
        layers = []
        for _ in range(30):
            layer = nn.Linear(64, 64)
            nn.init.xavier_normal_(layer.weight)
            layers += [layer, nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


def build_model():
    torch.manual_seed(0)
    return Calm()


def example_inputs():
    return (torch.randn(16, 64, generator=torch.Generator().manual_seed(0)),)


def loss(output):
    return output.square().mean()
```

## What it does not detect
Where a discrete choice (top-k routing, a comparison, a sort) fell differently under the perturbation, the change is a jump
and no derivative: nothing is said. A large offset of the data is not counted as conditioning of the model: it is the data's.

## Thresholds
- `warning` = 100: κ from which a warning is given. Over 31 healthy architectures κ is 0.2 to 5.2.
- `output_error` = 0.1: with κ above `warning` and 1/(8u) of a format it is an error in that format, where its run shows at
  least this error.

## References
- Higham 2002, Accuracy and Stability of Numerical Algorithms, 1.6.
- Poole et al. 2016, Exponential expressivity in deep neural networks through transient chaos, arXiv:1606.05340: tanh networks
  are chaotic for gains above 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from stabdiag.evidence.graph.main_path import main_path
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Location, Run, Trace
from stabdiag.trace.counterpart import reference_of
from stabdiag.trace.formats import format_of

KIND = "rounding"
LEVEL = "model"
BLOCKS = True


def check(trace: Trace, *, warning: float = 100.0, output_error: float = 0.1) -> Iterator[Finding]:
    """One finding for the whole model, at the layer where κ grows most."""
    spread = trace.experiments.get("conditioning", {}).get("spread", {})
    kappa, reference = spread.get("output"), reference_of(trace)
    if kappa is None or reference is None or spread["flips"] or not kappa > warning:
        return
    runs = [r for r in trace.runs if not r.step and not r.seed and r.precision != "float64"]
    hopeless = [
        r.precision
        for r in runs
        if kappa > 1 / (8 * format_of(r.precision).unit_roundoff) and (r.output_error or 0.0) > output_error
    ]
    where, growth, layers = _fastest_growth(trace, reference, spread["ops"])
    yield Finding(
        Severity.ERROR if hopeless else Severity.WARNING,
        f"the outputs change {kappa:,.0f} times as much as the inputs, relatively: an error of {kappa * 2.0**-11:.2g} in "
        f"float16 and {kappa * 2.0**-8:.2g} in bfloat16 is the model's own",
        precisions=hopeless or [r.precision for r in runs],
        location=where,
        label=f"each of {layers} layers amplifies a difference by {growth:.2f}",
        evidence={"condition": kappa, "growth": growth, "layers": layers},
        fixes=[
            Fix("xavier-init", "initialise with the gain of the nonlinearity"),
            Fix("residual", "add a residual connection or a normalisation"),
        ],
    )


def _fastest_growth(trace: Trace, reference: Run, ops: dict[str, float]) -> tuple[Location | None, float, int]:
    """(where the layer that amplifies most was initialised or made, geometric mean growth of κ per layer, layers)."""
    path = [(s, k) for s in main_path(reference) if (k := ops.get(str(s.op.index)))]
    if len(path) < 2:
        last = path[0][0].op if path else (reference.ops[-1] if reference.ops else None)
        return (trace.place(last) if last is not None else None), 1.0, len(path)
    growth = (path[-1][1] / path[0][1]) ** (1 / (len(path) - 1))
    steepest = max(pairwise(path), key=lambda pair: pair[1][1] / pair[0][1])[1][0]
    base = trace.base or reference
    layer = steepest.layers[-1]
    weights = [p for p in base.parameters if p.module == layer and len(p.shape) >= 2]
    written = next((p.initialised_at for p in weights if p.initialised_at is not None), None)
    return written or trace.place(steepest.op), growth, len(path)
