"""The loss gradient shrinks from layer to layer on its way back, so that the first layers do not learn.

## What it does
S_l is the L2 norm of dLoss/d(output of layer l), l = 0 at the input side, along the main path: every layer of a plain
network, the stream behind each addition of a residual one. D = log10(S_first / S_last), each the mean over a tenth of the
layers, in decades; s is the least-squares slope of log10 S_l over l in decades per layer. Reported is a gradient that is
lost (D) *and* lost steadily (s): error when D ≤ -3.5 and s ≥ 0.12, warning when D ≤ -2 and s ≥ 0.12. The loss must also
compound: without its largest single step, two thirds of D must remain, because one average pooling over n positions costs
log10 √n once; and half of the slope must show in the median step too, because what is lost at a few places between layers
that lose nothing (a codec's resampling layers, a token that one head reads of many) does not grow with depth. Two thirds of
both limits must also be kept with other seeds and after two optimizer steps: what training mends at once is no defect.

Over time, and so where the way is a few lines that run again and again, the same is measured at the state that each step of a
recurrence hands to the next. There loss per step is the normal case: default `nn.RNN`, `nn.LSTM` and `nn.GRU` that are read at
their last step lose 0.18 to 0.42 decades per step, and train. So an error needs more than any default initialisation shows, 0.6
decades per step, that is a memory of five steps; a plain recurrence (every way from step to step goes through the weight) that
loses 3.5 decades at a default rate is a warning; a gated one, which learns to keep its state, is silent below 0.6. Where the
first state is made by a trained layer and nothing else hands that layer a gradient, it loses all of it: an error when 7 decades
are lost over the steps.

## Why it matters
With S falling by 0.5 decades per layer, the tenth layer from the loss gets 1/100 000 of the signal that the last one gets.
SGD does not move it at all; Adam rescales it until it drowns in rounding noise or in its epsilon, and in float16 it is
zero.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        layers = [nn.Linear(16, 32)]
        for _ in range(9):
            layers += [nn.Sigmoid(), nn.Linear(32, 32)]  # expect: SD101
        self.body, self.head = nn.Sequential(*layers), nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.body(x))


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(16, 16, generator=torch.Generator().manual_seed(1)),)


def loss(out):
    return nn.functional.cross_entropy(out, torch.arange(16) % 4)
```

## Good
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        layers = [nn.Linear(16, 32)]
        for _ in range(9):
            layers += [nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 32)]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.body(x))


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(16, 16, generator=torch.Generator().manual_seed(1)),)


def loss(out):
    return nn.functional.cross_entropy(out, torch.arange(16) % 4)
```

## What it does not detect
Small gradients inside residual branches (LayerScale, ReZero and zero-initialised branches are made that way), a loss at one
single place (a zero gradient is SD103, a saturated unit SD202), networks of fewer than four layers, and the encoder of a
U-Net, whose long skips leave no path that everything must pass.

## Thresholds
Measured (`benchmarks/detection/thresholds.py`: 73 published architectures and 37 other healthy files, 79 of them deep enough to
be judged; 64 healthy and 46 ill models of its own; 0, 5, 50, 95, 100 % of each):

- `error_decades` = 3.5 and `warning_decades` = 2: least loss -D. Published -2.6, -1.1, -0.7, 1.6, 2.8; healthy of our own,
  with plain default-initialised ReLU networks among them, -0.35, -0.29, 0.2, 3.2, 3.2 (these are warnings: their largest
  step is an average pooling or they lose 2.0 over six layers); vanishing 7.4, 7.4, 8.7, 13.9, 13.9.
  Two audio codecs at their published initialisation lose 3.2 (2.6 with another seed) and 3.9, the latter with a median step
  of 0.00, two transformers with class or image tokens 3.2 and 3.5 with median steps of 0.00; vanishing networks 4.6 at
  least, with a median step of 0.24 at least.
- `slope` = 0.12: least s in decades per layer. Published -0.31, -0.20, -0.06, 0.24, 0.37 (no model is near both: the lesser
  of the two, each over its limit, reaches 0.8); default-initialised ReLU 0.39 to 0.58; vanishing 0.42, 0.42, 0.91, 1.7, 1.7.
  Xavier in front of ReLU loses log10 √2 = 0.151, and thirty such layers stall (He et al. 2015, figure 3).
- `kept` = 2/3: share of both limits with other seeds and after two steps. Those thirty layers, D = -4.4 and s = 0.150, have
  -3.6 and 0.115 after two steps of AdamW.
- `time_slope` = 0.6: least s in decades per time step for an error over time. Default initialisations at widths 16 to 256
  over 60 steps: nn.RNN tanh 0.22 to 0.33, ReLU 0.38 to 0.42, nn.LSTM 0.19 to 0.21, nn.GRU 0.18 to 0.20; recurrent weights
  at a tenth of their scale 1.04.

## References
Hochreiter 1991; Bengio, Simard & Frasconi 1994; Glorot & Bengio 2010; He et al. 2015 (arXiv:1502.01852); Pascanu, Mikolov &
Bengio 2013 (arXiv:1211.5063); Jozefowicz, Zaremba & Sutskever 2015 for the forget gate's bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from stabdiag.evidence.graph.author_line import line_of_weight
from stabdiag.evidence.signal.cause import cause_of_loss
from stabdiag.evidence.signal.depth import (
    FIRST_TO_LAST,
    LEAST_LAYERS,
    Course,
    most_precise,
    over_depth,
    over_time,
    ratio_ratchet,
    starved_layer,
)
from stabdiag.evidence.signal.initialisation import remedy
from stabdiag.evidence.signal.units import probed
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Op, Trace

KIND = "depth"
LEVEL = "model"
REMEDIES = (
    *("batch-norm", "gated-recurrence", "gru", "identity-recurrence", "kaiming-init", "layer-norm"),
    *("lstm-forget-bias", "orthogonal-init", "replace-activation", "replace-activation-function", "residual"),
    *("standardise-input", "xavier-init"),
)
FACT = FIRST_TO_LAST
RATCHET = ratio_ratchet(vanishing=True)
explains = ("SD104", "SD106", "SD205", "SD702")


def check(
    trace: Trace,
    *,
    error_decades: float = 3.5,
    warning_decades: float = 2.0,
    slope: float = 0.12,
    time_slope: float = 0.6,
    kept: float = 2 / 3,
) -> Iterator[Finding]:
    """Judge depth first, then time."""
    run = most_precise(trace)
    if run is None:
        return
    course = over_depth(run)

    def judge(course: Course | None, share: float = 1.0) -> Severity | Literal[False] | None:
        if course is None or len(course.norms) < LEAST_LAYERS:
            return None
        least = share * (time_slope if course.in_steps else slope)
        if not _lost(course, share * warning_decades, least):
            return False
        return Severity.ERROR if _lost(course, share * error_decades, least) else Severity.WARNING

    if course is not None and course.typical_step >= slope / 2 and (severity := judge(course)):
        finding = _over_depth(trace, course, severity)
        finding.still = lambda other: judge(over_depth(other), kept)
        yield finding
    for course in over_time(run):
        if course.decades > -error_decades or course.slope < slope:
            continue
        starved = starved_layer(run, course) if course.decades <= -2 * error_decades else None
        if starved is not None or course.slope >= time_slope:
            yield _over_time(trace, course, Severity.ERROR, starved)
        elif not course.carried:
            yield _over_time(trace, course, Severity.WARNING)


def _lost(course: Course, decades: float, slope: float) -> bool:
    return course.decades <= -decades and course.slope >= slope and course.spread_decades <= -decades * 2 / 3


def _over_depth(trace: Trace, course: Course, severity: Severity) -> Finding:
    run = most_precise(trace)
    assert run is not None
    cause = cause_of_loss(trace, run, course)
    first, last = course.ops[0], course.ops[-1]
    return Finding(
        severity,
        f"the loss gradient shrinks {10**-course.decades:.2g} times from `{last.layer}` back to `{first.layer}`: "
        f"{course.slope:.2f} decades per layer over {len(course.norms)} layers",
        module=cause.module,
        op=cause.op,
        phase="backward",
        precisions=probed(trace),
        location=cause.location,
        label=f"each step back keeps {10**-course.slope:.2g} of the gradient",
        notes=[f"cause: {cause.text}"],
        evidence={
            "decades": round(course.decades, 3),
            "decades_per_layer": round(course.slope, 4),
            "layers": len(course.norms),
            "log10_norms": [round(v, 3) for v in course.logs],
            "reaches": _reaches(trace),
        },
        fixes=[
            *cause.fixes,
            Fix("layer-norm", "normalise behind every layer") if cause.width else _NORM,
            Fix("residual", "carry the signal past every layer"),
        ],
    )


def _reaches(trace: Trace) -> list[int]:
    """The forward ops of the base run between the first and the last station: a gradient that underflows there does so because
    of its way."""
    course = over_depth(trace.base) if trace.base is not None else None
    return list(range(course.ops[0].index, course.ops[-1].index + 1)) if course is not None else []


_NORM = Fix("layer-norm", "normalise behind every layer")


def _over_time(trace: Trace, course: Course, severity: Severity, starved: Op | None = None) -> Finding:
    run = most_precise(trace)
    assert run is not None
    parameter = next(p for p in run.parameters if p.name == course.weight)
    notes = ["cause: " + ("the gates are closed" if course.carried else "every step multiplies by the same contracting weight")]
    location = line_of_weight(trace, parameter)
    if starved is not None:
        notes.append(f"evidence: `{starved.layer}` makes the first state and has no other way to the loss")
        location = course.ops[0].location or location
    steps = 3 / course.slope
    fixes = [remedy("", recurrent=True)]
    if not course.carried:
        fixes.append(Fix("gated-recurrence", "gate the state"))
    fixes.append(Fix("read-all-steps", "let the loss read more than the last step"))
    return Finding(
        severity,
        f"the gradient of the state of `{course.weight}` shrinks {10**course.slope:.2g} times per time step: "
        f"what lies more than {steps:.0f} steps back keeps less than a thousandth",
        module=parameter.module,
        phase="backward",
        precisions=probed(trace),
        location=location,
        label=f"{course.slope:.2f} decades per step over {len(course.norms)} steps",
        notes=notes,
        evidence={"decades": round(course.decades, 3), "decades_per_step": round(course.slope, 4), "steps": len(course.norms)},
        fixes=fixes,
    )
