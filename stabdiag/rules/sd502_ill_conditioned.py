"""Rounding the inputs and weights changes the gradient more than the data do: no arithmetic can train this model accurately.

## What it does
Compares the gradient of every run with that of the float64 run. Where they differ by more than a quarter, a step is taken
along each of them in float64 (`stabdiag.evidence.numbers.descent`). Error where a step along the gradient of a precision lowers
the loss by less than half of what the float64 gradient does; warning where rounding changes the gradient more than the choice
of samples does, or the outputs by more than half of what tells samples apart. Where it is the data that do not fit the format
(κ is large for rounding and not for what separates samples) it is a warning in float32 and in precisions that the file
declares, information in others. No op is to blame: SD501 and SD503 speak where one loses digits.

κ says how: the relative change of the outputs over that of what they are computed from, a number without unit, measured in
float64 with inputs and weights moved by 1e-6 (of themselves, and of the spread of the inputs). In a format of unit roundoff u
the outputs carry an error of about u·κ whatever the algorithm.

## Why it matters
A time of 2,700 s that matters to a second is 2,688 or 2,704 in bfloat16. What the model learns from is the rounding, runs do
not reproduce, and no fix of single ops helps.

## Bad
```python
import torch
from torch import nn

CELSIUS = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))


class Furnace(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(8, 16), nn.Linear(16, 1)

    def forward(self, temperature):
        deviation = temperature - temperature.mean()  # expect: SD502
        return self.out(torch.tanh(self.hidden(deviation)))


def build_model():
    torch.manual_seed(0)
    return Furnace()


def example_inputs():
    return (1500 + CELSIUS,)


def loss(output):
    return (output - 3 * CELSIUS[:, :1].to(output)).square().mean()
```

## Good
```python
import torch
from torch import nn

CELSIUS = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))


class Furnace(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(8, 16), nn.Linear(16, 1)

    def forward(self, deviation):
        return self.out(torch.tanh(self.hidden(deviation)))


def build_model():
    torch.manual_seed(0)
    return Furnace()


def example_inputs():
    return (CELSIUS,)


def loss(output):
    return (output - 3 * CELSIUS[:, :1].to(output)).square().mean()
```

## What it does not detect
Where a discrete choice (top-k routing, a comparison, a sort) fell differently under the perturbation, the change is a jump
and no derivative: nothing is said. Nor is it where the loss is so rough that the float64 gradient descends by less than half of
its slope in one step of training: small-batch residual networks with batch normalisation amplify rounding a hundred times at
the start, as they amplify every step, and train in bfloat16; a chaotic initialisation is SD102's.

## Thresholds
- `condition` = 100: κ from which the model is named as what amplifies; below it the loss is. Over 31 healthy architectures κ is
  0.2 to 5.2, up to 1,000 with batch statistics over few elements.

The bounds of descent and noise are those of the verdicts, `stabdiag/evidence/numbers/descent.py`.

## References
- Higham 2002, Accuracy and Stability of Numerical Algorithms, 1.6.
- Bottou, Curtis, Nocedal 2018, Optimization Methods for Large-Scale Machine Learning, SIAM Review 60(2), section 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from stabdiag.evidence.graph.main_path import main_path
from stabdiag.evidence.numbers.blame import LIMIT, blame
from stabdiag.evidence.numbers.descent import Descent, Outcome, descent_of
from stabdiag.evidence.numbers.poison import harmful
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Location, Run, Trace
from stabdiag.trace.counterpart import reference_of
from stabdiag.trace.experiments import Conditioning

KIND = "rounding"
LEVEL = "model"
BLOCKS = True
REMEDIES = ("float32-phases", "residual", "standardise-data", "standardise-input")


def check(trace: Trace, *, condition: float = 100.0) -> Iterator[Finding]:
    """One finding for the whole model, where κ grows most; at its severity in the precisions that fare worst."""
    reference, measured = reference_of(trace), trace.experiments.conditioning
    spread, rounding = (measured.get(perturbation, Conditioning()) for perturbation in ("spread", "rounding"))
    if reference is None or spread.flips or rounding.flips:
        return
    judged = [(run, descent) for run in _runs(trace) if (descent := descent_of(trace, run)) is not None]
    for outcome, severity in ((Outcome.LOST, Severity.ERROR), (Outcome.NOISY, Severity.WARNING)):
        ill = [(run, of) for run, of in judged if of.outcome is outcome and not _explained(trace, run)]
        if ill:
            by_inputs, by_rounding = (spread.output or 0.0, rounding.output or 0.0)
            yield _finding(trace, reference, severity, ill, by_inputs, by_rounding, condition)


def _runs(trace: Trace) -> list[Run]:
    return [r for r in trace.runs if not r.step and not r.seed and r.precision != "float64"]


def _explained(trace: Trace, run: Run) -> bool:
    """Whether an op is to blame, by what it makes of finite numbers or by the digits that it loses."""
    return bool(harmful(run)) or blame(trace, run, LIMIT) is not None


def _finding(
    trace: Trace,
    reference: Run,
    severity: Severity,
    ill: list[tuple[Run, Descent]],
    by_inputs: float,
    by_rounding: float,
    condition: float,
) -> Finding:
    run, descent = max(ill, key=lambda pair: pair[1].error)
    if by_inputs <= condition < by_rounding:
        # The data do not fit the format, whatever the model. The verdict says so; who did not ask for it need not care.
        wanted = {"float32", *trace.subject.training.get("precisions", ())}
        severity = Severity.WARNING if wanted & {r.precision for r, _ in ill} else Severity.INFO
    conditioning = trace.experiments.conditioning
    if by_inputs > condition:
        where, growth, layers = _fastest_growth(trace, reference, conditioning["spread"].ops)
        cause = f"nearby inputs give outputs {by_inputs:,.0f} times as far apart"
        label = f"each of {layers} layers amplifies a difference by {growth:.2f}"
        fixes = [
            Fix("xavier-init", "initialise with the gain of the nonlinearity"),
            Fix("residual", "add a residual connection or a normalisation"),
        ]
    elif by_rounding > condition:
        where = _first_above(trace, reference, conditioning["rounding"].ops, by_rounding / 2)
        cause = f"the outputs change {by_rounding:,.0f} times as much as inputs and weights, relatively"
        label = "amplifies the rounding of what it is given"
        fixes = [Fix("standardise-input", "subtract the offset of the data in float32, before the cast")]
    else:
        where = next((trace.place(op) for op in reference.phase("loss") if not op.view), None)
        cause = "the outputs are accurate, the loss amplifies their rounding"
        label = "amplifies the rounding of what it is given"
        fixes = [Fix("float32-loss", "compute the loss in float32")]
    return Finding(
        severity,
        f"in {run.precision} {descent.told}: {cause}",
        precisions=[r.precision for r, _ in ill],
        location=where,
        label=label,
        evidence={
            "condition": max(by_inputs, by_rounding),
            "gradient_error": descent.error,
            "share_of_descent": descent.share,
            "sampling_noise": descent.sampling,
        },
        fixes=fixes,
    )


def _first_above(trace: Trace, reference: Run, ops: dict[int, float], condition: float) -> Location | None:
    """Where a condition number is reached first."""
    op = next((o for o in reference.ops if ops.get(o.index, 0.0) >= condition), None)
    return trace.place(op) if op is not None else None


def _fastest_growth(trace: Trace, reference: Run, ops: dict[int, float]) -> tuple[Location | None, float, int]:
    """(where the layer that amplifies most was initialised or made, geometric mean growth of κ per layer, layers)."""
    path = [(s, k) for s in main_path(reference) if (k := ops.get(s.op.index))]
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
