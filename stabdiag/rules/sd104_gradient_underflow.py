"""Gradients fall below what float16 can hold and become zero.

## What it does
Two questions about float16, with and without autocast. (bfloat16 and float32 have the range, nothing is asked there.)

Without loss scaling: the backward pass is run in float16 from the unscaled loss, at the start and after two optimizer
steps, and compared with float32. A parameter tensor is lost when more than half of the energy of its gradient (sum of
squares) lies in elements that became 0. Error when tensors with more than half of all trained elements are lost at both
times, warning above a fifth. Energy and whole tensors are judged, not the share of small elements: rows of an output layer
for words that do not occur are small and unimportant. Both times are judged, because branches behind LayerScale 1e-6,
ReZero and zero-initialised heads get their gradient as soon as the first steps have moved the scale. The backward pass is
really run, because a gradient flushed at the loss takes those of all parameters along, whatever their own size.

With the best loss scale: f(S) is the share of trained elements in tensors that are lost in the same sense, more than half of
the energy of the float32 gradient lying in elements with |S·g| < 2^-25, half of the smallest subnormal number. Error when
f(S*) > 5 %, S* = the largest power of two with max|S·g| ≤ 65504/8: no one scale holds the largest and the smallest gradients.
Warning when f(2^16) > 1 %, at the scale that `torch.amp.GradScaler` starts from. Tensors whose gradient is zero
mathematically (a key bias before softmax, a bias before a normalisation) carry float noise and are left out: their float32
and float64 gradients differ by more than ten times.

## Why it matters
A gradient that is zero trains nothing, and nothing is printed: the loss just stops falling in float16.

## Bad
```python
import torch
from torch import nn


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x):
        return x - self.two(torch.tanh(self.one(x)))


def build_model():
    torch.manual_seed(0)
    return Denoiser()


def example_inputs():
    return (0.01 * torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(1)),)


def loss(out):
    return 1e-4 * out.square().mean()  # expect: SD104
```

## Good
```python
import torch
from torch import nn


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x):
        return x - self.two(torch.tanh(self.one(x)))


def build_model():
    torch.manual_seed(0)
    return Denoiser()


def example_inputs():
    return (torch.randn(2, 1, 96, 96, generator=torch.Generator().manual_seed(1)),)


def loss(out):
    return out.square().mean()
```

## What it does not detect
Underflow that begins only late in training, when gradients have become smaller; underflow of activations (SD304).

## Thresholds
Measured (`benchmarks/detection/thresholds.py`: 73 published architectures and 37 other healthy files, 79 of them deep enough to
be judged; 64 healthy and 46 ill models of its own; 0, 5, 50, 95, 100 % of each):

- `lost` = 0.5 and `lost_warning` = 0.2: share of trained elements in lost tensors without scaling, the smaller of both times.
  Published 0, 0, 0, 0.07, 0.24 (a token loss of a Funnel transformer, which a scale repairs), and 1 in one whose count of
  voxels overflows (told apart because no gradient on its way is small); tiny loss weights and means over many pixels 0.82,
  0.82, 0.98, 1, 1.
- `best_scale` = 0.05: f(S*). Published 0, 0, 0, 0, 0.0045; gradients that no one scale holds 0.13 to 0.54. `first_scale` =
  0.01: f(2^16). Published 0, 0, 0, 0, 0.0012; signals that vanish over depth 0.09. (The share of small elements, whatever
  energy they hold, is 0.12 in a healthy capsule network.)

## References
Micikevicius et al. 2018 (arXiv:1710.03740), section 3.2; torch.amp.GradScaler.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite, log2

from stabdiag.evidence.graph.main_path import main_path
from stabdiag.evidence.numbers.loss_scale import FIRST_SCALE, LOST_WORTH_SCALING, scale_of_tensors
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Op, Parameter, Run, Trace
from stabdiag.trace.formats import Format, format_of

KIND = "depth"
LEVEL = "model"
BLOCKS = True
REMEDIES = ("float32-loss", "loss-scaling")
explains = ("SD304", "SD106")

NOISE = 10.0


def check(
    trace: Trace,
    *,
    lost: float = 0.5,
    lost_warning: float = 0.2,
    best_scale: float = 0.05,
    first_scale: float = LOST_WORTH_SCALING,
) -> Iterator[Finding]:
    """One finding per precision with float16's range."""
    base = trace.run("float32")
    if base is None or base.error is not None or base.loss is None or not isfinite(base.loss):
        return
    trained = _trained(trace, base)
    if not trained:
        return
    for precision in trace.precisions:
        format = format_of(precision)
        if format.name != "float16":
            continue
        scale = scale_of_tensors(base, format)
        unscaled = _unscaled(trace, precision, {p.name for p in trained})
        best, first = _share(trained, format, scale), _share(trained, format, FIRST_SCALE)
        op = _where(base, format)
        if unscaled > lost_warning and op is not None:  # lost for another reason otherwise: an overflow, a count of elements
            severity = Severity.ERROR if unscaled > lost else Severity.WARNING
            said = f"without loss scaling {unscaled:.0%} of the parameters get no {format.name} gradient, at steps 0 and 2"
        elif best > best_scale:
            severity, said = Severity.ERROR, f"{best:.0%} of the parameters get no {format.name} gradient at any loss scale"
        elif first > first_scale and scale >= FIRST_SCALE:
            severity = Severity.WARNING
            said = f"{first:.0%} of the parameters get no {format.name} gradient at the first loss scale, 2^16"
        else:
            continue
        yield _finding(trace, base, op, precision, format, severity, said, scale, (unscaled, best, first))


def _trained(trace: Trace, base: Run) -> list[Parameter]:
    """Parameters with a gradient that is more than float noise."""
    double = trace.run("float64")
    exact = {p.name: p.gradient.rms for p in double.parameters if p.gradient is not None} if double is not None else {}
    have = [p for p in base.parameters if p.gradient is not None and p.gradient.max_abs > 0 and not p.gradient.nonfinite]
    largest = max((p.gradient.rms for p in have if p.gradient is not None), default=0.0)

    def noise(p: Parameter) -> bool:
        rms = p.gradient.rms if p.gradient is not None else 0.0
        if p.name not in exact:
            return rms < 1e-6 * largest
        return not rms / NOISE < exact[p.name] < rms * NOISE

    return [p for p in have if not noise(p)]


def _share(parameters: list[Parameter], format: Format, scale: float) -> float:
    """f(S): share of the elements that are not zero in tensors that lose more than half of their energy."""
    total = gone = 0
    for p in parameters:
        if p.gradient is None or not p.gradient.sampled:
            continue
        elements = p.gradient.count - p.gradient.zeros
        total += elements
        gone += elements if p.gradient.energy_below(format.smallest / 2 / scale) > 0.5 else 0
    return gone / total if total else 0.0


def _unscaled(trace: Trace, precision: str, trained: set[str]) -> float:
    """Share of elements in lost tensors, the smallest over the steps; 0.0 where it was not measured."""
    steps = trace.experiments.unscaled.get(precision, {})
    shares = []
    for facts in steps.values():
        judged = {name: fact for name, fact in facts.items() if name in trained}
        total = sum(f.elements for f in judged.values())
        shares.append(sum(f.elements for f in judged.values() if f.lost > 0.5) / total if total else 0.0)
    return min(shares, default=0.0)


def _where(run: Run, format: Format) -> Op | None:
    """The op nearest to the loss that hands a gradient on which the format cannot hold, having got one that it can."""
    below = {v for v, value in enumerate(run.values) if _flushed(run, v, format)}
    for op in sorted(run.phase("forward", "loss"), key=lambda o: -o.index):
        output = run.output_of(op)
        if output is None or op.view or output.gradient is None or op.outputs[0] in below:
            continue
        if any(i in below or run.behind_views(i) in below for i in op.inputs):
            return op
    return next((s.op for s in main_path(run) if s.op.outputs[0] in below), None)


def _flushed(run: Run, value_id: int, format: Format) -> bool:
    gradient = run.values[value_id].gradient
    return gradient is not None and gradient.max_abs > 0 and gradient.underflow(format, 1 / run.loss_scale) > 0.5


def _finding(
    trace: Trace,
    base: Run,
    op: Op | None,
    precision: str,
    format: Format,
    severity: Severity,
    said: str,
    scale: float,
    shares: tuple[float, float, float],
) -> Finding:
    unscaled, best, first = shares
    power = f"2.0**{log2(scale):.0f}"
    repaired = best <= 0.05
    fixes = [
        Fix("bfloat16", "use bfloat16, whose range is that of float32"),
        Fix("float32-loss", "weigh and reduce the loss in float32"),
    ]
    if repaired:
        fixes.insert(0, Fix("loss-scaling", f"scale the loss by {power}"))
    return Finding(
        severity,
        said + (f"; a scale of {power} keeps {1 - best:.0%}" if repaired else ""),
        **{**at(op), "phase": "backward"},
        precisions=[precision],
        label=f"gradients behind this line are below {format.smallest / 2:.1g}",
        blocks=[] if repaired else [precision],  # the verdict names the scale, and the scaled run's numbers decide
        notes=[f"evidence: lost without scaling {unscaled:.0%}, at 2^{log2(scale):.0f} {best:.0%}, at 2^16 {first:.0%}"],
        evidence={
            "lost_unscaled": round(unscaled, 4),
            "lost_at_best_scale": round(best, 4),
            "lost_at_first_scale": round(first, 4),
            "loss_scale": scale,
            "repaired_by_scaling": repaired,
            **({"op_index": op.index} if op is not None else {}),
        },
        fixes=fixes,
    )
