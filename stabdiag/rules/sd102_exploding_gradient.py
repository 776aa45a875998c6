"""The loss gradient grows from layer to layer, or from time step to time step, on its way back.

## What it does
S_l, D and s are those of SD101: the norm of the loss gradient along the main path, its change over the whole in decades and
per layer. Error when D ≥ 3 and s ≤ -0.15, warning when D ≥ 3 and s ≤ -0.10 or D ≥ 2 and s ≤ -0.15; without its largest
single step, two thirds of D must remain, so that one badly scaled place is not taken for compounding growth. Over time, at
the state that a recurrence of eight or more steps hands on, the same: error at s ≤ -0.05, warning at s ≤ -0.02 decades per
step; and so where the main path is one line run again and again, whatever factor carries the state. Error too when float32
gradients of parameters overflow although every forward value and the loss are finite and float64 shows what they should have
been.

## Why it matters
The first step of an optimizer throws the early layers to where nothing is left to learn from, the loss becomes NaN a few
steps later, and in float16 the gradients overflow at any loss scale. Clipping by norm keeps the step finite, but its
direction is that of the exploding layers alone.

## Bad
```python
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    layers = []
    for _ in range(6):
        layers += [nn.Linear(64, 64), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(64, 1))
    for part in net:
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight)  # expect: SD102
    return net


def example_inputs():
    return (torch.randn(16, 64, generator=torch.Generator().manual_seed(1)),)


def loss(out):
    return out.square().mean()
```

## Good
```python
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    layers = []
    for _ in range(6):
        layers += [nn.Linear(64, 64), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(64, 1))
    for part in net:
        if isinstance(part, nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    return net


def example_inputs():
    return (torch.randn(16, 64, generator=torch.Generator().manual_seed(1)),)


def loss(out):
    return out.square().mean()
```

## What it does not detect
Growth inside residual branches and across the long skips of a U-Net, large gradients that do not compound (a sum instead of
a mean in the loss), and explosions that only training brings about: `--steps` watches those (SD801).

## Thresholds
Measured (`benchmarks/detection/thresholds.py`: 73 published architectures and 37 other healthy files, 79 of them deep enough to
be judged; 64 healthy and 46 ill models of its own; 0, 5, 50, 95, 100 % of each):

- `decades` = 3 and `warning_decades` = 2: least growth D. Published -2.8, -1.6, 0.7, 1.1, 2.6, and 3.8 in one whose growth is
  a single step; exploding 3.8, 3.8, 5.1, 8.6, 8.6. Between them lie deep linear maps that expand 1.65 times per layer.
- `error_slope` = 0.15 and `warning_slope` = 0.10: least growth -s per layer. Published -0.37, -0.24, 0.06, 0.20, 0.31 (the
  lesser of both, each over its limit, reaches 0.57); ConvMixer 0.06, ResNet-50 0.04; exploding 0.37, 0.37, 0.61, 3.5, 3.5.
- `kept` = 2/3: share of `decades` that other seeds and the state after two steps must still show.
- `time_slope` = 0.05 and `time_warning_slope` = 0.02: least growth per time step, with D ≥ 3. Default nn.RNN, nn.LSTM and
  nn.GRU lie between -0.42 and 0.001, an identity-initialised ReLU recurrence at 0.034 with D = 1 (its growth is linear in
  time, not exponential); recurrences of spectral radius 1.7 to 2.2 at 0.077 to 0.23.

## References
Bengio, Simard & Frasconi 1994; Pascanu, Mikolov & Bengio 2013 (arXiv:1211.5063); Le, Jaitly & Hinton 2015
(arXiv:1504.00941); Hanin 2018 (arXiv:1801.03744).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from stabdiag.evidence.graph.author_line import line_of_weight
from stabdiag.evidence.signal.cause import cause_of_growth
from stabdiag.evidence.signal.depth import (
    FIRST_TO_LAST,
    LEAST_LAYERS,
    Course,
    most_precise,
    over_depth,
    over_time,
    ratio_ratchet,
)
from stabdiag.evidence.signal.initialisation import remedy
from stabdiag.evidence.signal.units import probed
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Parameter, Run, Trace

KIND = "depth"
LEVEL = "model"
REMEDIES = (
    *("batch-norm", "final-norm", "gated-recurrence", "gru", "identity-recurrence", "instance-norm", "kaiming-init"),
    *("layer-norm", "orthogonal-init", "rms-norm", "sanitise-input", "scale-branches", "spectral-norm"),
    *("standardise-input", "unit-factor", "xavier-init", "zero-init-branch"),
)
FACT = FIRST_TO_LAST
RATCHET = ratio_ratchet(vanishing=False)
explains = ("SD203", "SD702", "SD705")

UNROLLED = 0.8  # share of the growth over depth that time steps make, from which both are the same


def check(
    trace: Trace,
    *,
    decades: float = 3.0,
    warning_decades: float = 2.0,
    error_slope: float = 0.15,
    warning_slope: float = 0.10,
    time_slope: float = 0.05,
    time_warning_slope: float = 0.02,
    kept: float = 2 / 3,
) -> Iterator[Finding]:
    """Judge time, then depth where that is not the time steps, then overflow of gradients that nothing else explains."""
    run = most_precise(trace)
    if run is None:
        return
    found = False
    in_time = [c for c in over_time(run) if c.decades >= decades and c.slope <= -time_warning_slope]
    for steps in in_time:
        yield _over_time(trace, run, steps, Severity.ERROR if steps.slope <= -time_slope else Severity.WARNING)
        found = True
    course = over_depth(run)
    unrolled = course is not None and any(c.decades > UNROLLED * course.decades for c in in_time)
    if course is not None and course.in_steps:
        error_slope, warning_slope = time_slope, time_warning_slope
    if course is not None and not unrolled:
        if _grown(course, decades, error_slope):
            severity = Severity.ERROR
        elif _grown(course, decades, warning_slope) or _grown(course, warning_decades, error_slope):
            severity = Severity.WARNING
        else:
            severity = None
        if severity is not None:
            finding = _over_depth(trace, run, course, severity)
            finding.still = lambda other: (
                None
                if (there := over_depth(other)) is None
                else severity
                if _grown(there, kept * decades, warning_slope)
                else False
            )
            yield finding
            found = True
    if not found:
        yield from _overflowed(trace, run)


def _grown(course: Course, decades: float, slope: float) -> bool:
    return (
        len(course.norms) >= LEAST_LAYERS
        and course.decades >= decades
        and course.slope <= -slope
        and course.spread_decades >= decades * 2 / 3
    )


def gradient_norm(trace: Trace) -> float:
    """L2 norm of the gradient of all parameters."""
    run = most_precise(trace)
    squares = (
        sum(p.gradient.norm**2 for p in run.parameters if p.gradient is not None and isfinite(p.gradient.norm)) if run else 0.0
    )
    return float(squares**0.5)


def clipping(trace: Trace) -> Fix:
    """Gradient clipping, with the norm that was measured."""
    return Fix("gradient-clipping", f"clip the gradient norm, {gradient_norm(trace):.3g} here, before each optimizer step")


def _over_depth(trace: Trace, run: Run, course: Course, severity: Severity) -> Finding:
    cause = cause_of_growth(trace, run, course)
    place = "step" if course.in_steps else "layer"
    return Finding(
        severity,
        f"the loss gradient grows {10**course.decades:.2g} times from `{course.ops[-1].layer}` back to "
        f"`{course.ops[0].layer}`: {-course.slope:.2f} decades per {place} over {len(course.norms)} {place}s",
        module=cause.module,
        op=cause.op,
        phase="backward",
        precisions=probed(trace),
        location=cause.location,
        label=f"each step back multiplies the gradient by {10**-course.slope:.2g}",
        notes=[f"cause: {cause.text}"],
        evidence={
            "decades": round(course.decades, 3),
            "decades_per_layer": round(course.slope, 4),
            "gradient_norm": gradient_norm(trace),
            "layers": len(course.norms),
            "log10_norms": [round(v, 3) for v in course.logs],
            **({"factor": cause.factor} if cause.factor else {}),
        },
        fixes=[
            *cause.fixes,
            Fix("layer-norm", "normalise behind every layer"),
            clipping(trace),
        ],
    )


def _over_time(trace: Trace, run: Run, course: Course, severity: Severity) -> Finding:
    parameter = _parameter(run, course.weight)
    return Finding(
        severity,
        f"the gradient of the state of `{course.weight}` grows {10**-course.slope:.2g} times per time step, "
        f"{10**course.decades:.2g} times over {len(course.norms)} steps",
        module=parameter.module,
        phase="backward",
        precisions=probed(trace),
        location=line_of_weight(trace, parameter),
        label=f"{-course.slope:.2f} decades per time step",
        notes=["cause: every step multiplies the state's gradient by the same expanding weight"],
        evidence={"decades": round(course.decades, 3), "decades_per_step": round(course.slope, 4), "steps": len(course.norms)},
        fixes=[remedy("", recurrent=True), clipping(trace)],
    )


def _overflowed(trace: Trace, precise: Run) -> Iterator[Finding]:
    """Float32 gradients of parameters that are infinite although the forward pass is finite and float64 knows their values."""
    run = trace.run("float32")
    if run is None or precise is run or run.loss is None or not isfinite(run.loss):
        return
    if any(
        v.stats is not None and v.stats.nonfinite and v.op is not None and run.ops[v.op].phase != "backward" for v in run.values
    ):
        return
    known = {p.name: p.gradient for p in precise.parameters}
    lost = [p for p in run.parameters if p.gradient is not None and p.gradient.nonfinite and _finite(known.get(p.name))]
    if not lost:
        return
    worst = max(lost, key=lambda p: known[p.name].max_abs)  # type: ignore[union-attr]
    largest = known[worst.name].max_abs  # type: ignore[union-attr]
    if largest < 1e30:
        return
    yield Finding(
        Severity.ERROR,
        f"gradients of {len(lost)} parameters overflow float32: that of `{worst.name}` would be {largest:.2g}",
        module=worst.module,
        phase="backward",
        precisions=probed(trace),
        location=line_of_weight(trace, worst),
        label=f"gradient {largest:.2g}",
        evidence={"parameters": [p.name for p in lost], "largest": largest},
        fixes=[remedy(""), clipping(trace)],
    )


def _finite(gradient: object) -> bool:
    return gradient is not None and not getattr(gradient, "nonfinite", 1)


def _parameter(run: Run, name: str) -> Parameter:
    return next(p for p in run.parameters if p.name == name)
