"""The loss diverges, oscillates or does not move in the first training steps.

## What it does
With `--steps N`: takes N optimizer steps on one fixed batch with fixed random draws, in each precision, for up to three
seeds. Judged when two of three seeds agree: error when a loss, gradient or weight becomes non-finite, or when the median of
the last quarter of the losses exceeds `divergence` times the first; warning when the loss changes direction at least
`oscillation` times with moves above `amplitude` of its median, or never falls by more than `progress` of its start. In a
16-bit precision "does not fall" counts only where float32 falls by more than the format can resolve in a loss (4 u). A step
that breaks is recorded again op by op, and the op where the NaN or infinity is born is named.

## Why it matters
On one batch that is seen again and again, any working optimizer lowers the loss. What rises there will not fall on changing
data.

## Bad
```python
# scan: steps=20
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))


def example_inputs():
    return (torch.randn(64, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean()


def make_optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=5.0)  # expect: SD801
```

## Good
```python
# scan: steps=20
import torch
from torch import nn


def build_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))


def example_inputs():
    return (torch.randn(64, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean()


def make_optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.05)
```

## What it does not detect
Divergence that needs more steps than were asked for, or changing data. What the default optimizer does (AdamW at 1e-3,
nobody's choice) is reported one level lower.

## Thresholds
- `divergence` (2.0): ratio of the end to the start. 31 healthy architectures under AdamW at 1e-3 end between 0 and 0.97.
- `oscillation` (8), `amplitude` (0.2): changes of direction, and their size relative to the median loss; healthy models show
  none.
- `progress` (1e-6): least relative decrease, some float32 roundings of a loss.

## References
- Cohen et al. 2021, "Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability", arXiv:2103.00065.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Any

from stabdiag.evidence.numbers.loss_scale import parameter_gradients, recommended_scale
from stabdiag.evidence.signal import steps
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Trace
from stabdiag.trace.formats import format_of

KIND = "training"
LEVEL = "model"
REMEDIES = (
    *("clip-by-value", "gradient-clipping", "higher-learning-rate", "loss-scaling", "lower-learning-rate"),
    *("optimizer-epsilon", "warm-up", "weight-decay"),
)
explains = ("SD802", "SD806")


def check(
    trace: Trace, *, divergence: float = 2.0, oscillation: int = 8, amplitude: float = 0.2, progress: float = 1e-6
) -> Iterator[Finding]:
    """At most one finding per precision; what float32 does too is one finding for all."""
    facts = steps.optimizer(trace)
    by_precision = steps.runs(trace) if facts else {}
    found: list[Finding] = []
    for precision, runs in by_precision.items():
        curves = [steps.losses(run) for run in runs]
        still = facts["lr"] > 0 and not facts["warming_up"]
        if any(steps.epsilon_vanishes(run, facts) for run in runs):
            continue  # SD505 tells
        if steps.agreed(bool(run["broke"]) and not _skips(run) for run in runs):
            finding = _broke(trace, precision, facts, next(run for run in runs if run["broke"]))
        elif steps.agreed(steps.diverged(curve, divergence) for curve in curves):
            curve = next(c for c in curves if steps.diverged(c, divergence))
            what = f"the loss rises from {curve[0]:.3g} to {curve[-1]:.3g} in {len(curve)} steps on one batch"
            finding = _finding(trace, Severity.ERROR, what, precision, facts, curve)
        elif steps.agreed(steps.swings(curve, amplitude) >= oscillation for curve in curves):
            times = f"{steps.swings(curves[0], amplitude)} times in {len(curves[0])} steps"
            finding = _finding(
                trace, Severity.WARNING, f"the loss goes up and down {times} on one batch", precision, facts, curves[0]
            )
        elif still and steps.agreed(_stands(run, progress, precision, by_precision["float32"]) for run in runs):
            finding = _stuck(trace, precision, facts, runs[0])
        else:
            continue
        if found and found[0].precisions[0] == "float32":
            found[0].precisions.append(precision)
        else:
            found.append(finding)
    yield from found


def _skips(run: dict[str, Any]) -> bool:
    return bool(run["rows"]) and run["rows"][-1]["skipped"]


def _stands(run: dict[str, Any], progress: float, precision: str, plain: list[dict[str, Any]]) -> bool:
    """Whether the loss never fell, where it should have by more than the format resolves."""
    fell = steps.decrease(steps.losses(run))
    if not isfinite(fell) or run["clipped_to_zero"]:
        return False
    if precision == "float32":
        return fell <= progress
    expected = min((d for run in plain if isfinite(d := steps.decrease(steps.losses(run)))), default=0.0)
    resolution = 4 * format_of(precision).unit_roundoff
    return fell <= progress and expected > resolution


def _broke(trace: Trace, precision: str, facts: dict[str, Any], run: dict[str, Any]) -> Finding:
    born = run["birth"]
    step = run["taken"]
    what = f"the {run['broke']} {'are' if run['broke'] == 'parameters' else 'is'} not finite at step {step}"
    finding = _finding(trace, Severity.ERROR, what, precision, facts, steps.losses(run))
    finding.evidence["whole_model"] = step == 1 and run["broke"] != "parameters"
    if born:
        layer = born["layer"] or born["module"]
        of = f" of `{layer}`" if layer else ""
        phase = "optimizer step" if born["phase"] == "step" else born["phase"]
        kind = "NaN" if born["kind"] == "nan" else "infinity"
        finding.notes.insert(
            0, f"cause: the first {kind} is made by `{born['op']}`{of} in the {phase} of step {born['step'] + 1}"
        )
        finding.module, finding.op = layer, born["op"]
        finding.phase = born["phase"] if born["phase"] in ("backward", "step") else "forward"
        if born["phase"] != "step":
            finding.location = steps.place(born) or finding.location
        finding.evidence["birth"] = born
    if precision != "float32":
        finding.fixes = [_autocast(precision)]
    return finding


def _stuck(trace: Trace, precision: str, facts: dict[str, Any], run: dict[str, Any]) -> Finding:
    curve = steps.losses(run)
    what = f"the loss does not fall below {curve[0]:.4g} in {len(curve)} steps on one batch"
    finding = _finding(trace, Severity.WARNING, what, precision, facts, curve)
    finding.fixes = [Fix("higher-learning-rate", f"raise the learning rate above {facts['lr']:g}")]
    if precision == "float32":
        return finding
    finding.fixes = [_autocast(precision)]
    base = trace.base
    gradients = parameter_gradients(base) if base is not None else None
    if precision == "float16" and gradients is not None and gradients.underflow(format_of(precision)) > 0.01:
        scale = recommended_scale(trace, precision)
        share = gradients.underflow(format_of(precision))
        finding.notes.insert(0, f"cause: {share:.0%} of the gradients flush to 0 in float16 without loss scaling")
        finding.evidence |= {"underflow": share, "loss_scale": scale}
        power = f"2^{scale.hex().partition('p')[2].lstrip('+')}"
        finding.message += f", though it falls in float32; a loss scale of {power} would keep the gradients"
        fix = Fix("loss-scaling", f"scale the loss by {power} and the gradients back")
        if run["scaled"]:
            fix.before, fix.after = (f"loss {min(x):.4g} after {len(x)} steps" for x in (curve, run["scaled"]["losses"]))
            fix.proven = steps.decrease(run["scaled"]["losses"]) > 0
        finding.fixes.insert(0, fix)
    return finding


def _finding(trace: Trace, severity: Severity, what: str, precision: str, facts: dict[str, Any], curve: list[float]) -> Finding:
    rate = steps.calmer_rate(trace, facts)
    return Finding(
        steps.lowered(severity, facts),
        f"{what} under {steps.named(facts)}",
        phase="step",
        precisions=[precision],
        location=steps.place(facts),
        label=what,
        notes=[f"evidence: loss {', '.join(f'{x:.3g}' for x in curve[:6])}{' …' if len(curve) > 6 else ''}"],
        evidence={"losses": curve, "lr": facts["lr"], "calmer_lr": rate},
        fixes=[
            Fix("lower-learning-rate", f"lower the learning rate to {rate:.1g}, or warm up to it"),
            Fix("gradient-clipping", "clip the gradient norm"),
        ],
    )


def _autocast(precision: str) -> Fix:
    dtype = precision.removeprefix("amp-")
    return Fix("float32-master-weights", f"keep weights and optimizer in float32 and compute in {dtype} under autocast")
