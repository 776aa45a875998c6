"""The loss scale of automatic mixed precision falls and falls: steps are skipped instead of taken.

## What it does
With `--steps N` and `-p amp-float16`: trains under autocast with the rule of `torch.amp.GradScaler` (start at 2^16, halve it
and skip the step when a gradient is not finite). Reported when the scale falls below 1, when no step is taken at all, or when
more than `skipped` of the steps after the first accepted one are skipped. The last skipped step is repeated at scale 1: if it
still overflows, no scale can help, and the op where the infinity or NaN is born is named.

## Why it matters
A few skipped steps at the start are how the scale finds its level. A scale that keeps falling means an overflow that scaling
did not cause; the model stands still while the loop looks busy.

## Bad
```python
# scan: steps=20
# scan: precisions=["float32", "amp-float16"]
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.second = nn.Linear(32, 1)

    def forward(self, x):
        hidden = self.first(x * 1e6)  # expect: SD803
        return self.second(hidden / 1e6)


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 16, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean()
```

## Good
```python
# scan: steps=20
# scan: precisions=["float32", "amp-float16"]
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.second = nn.Linear(32, 1)

    def forward(self, x):
        return self.second(self.first(x))


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 16, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean()
```

## What it does not detect
Overflows that only come with other data, or after more steps than were asked for.

## Thresholds
- `skipped` (0.25): share of the steps after the first accepted one. GradScaler doubles its scale every 2,000 steps and skips
  about one step each time it has gone too far: a share of 0.0005 in a healthy run.

## References
- Micikevicius et al. 2018, "Mixed Precision Training", arXiv:1710.03740, section 3.2.
- lucidrains/stylegan2-pytorch#100: a scale of 16384 that falls to 2 and on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stabdiag.evidence.signal import steps
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Trace

KIND = "training"
LEVEL = "model"
REMEDIES = ("gradient-clipping", "loss-scaling")


def check(trace: Trace, *, skipped: float = 0.25) -> Iterator[Finding]:
    """At most one finding per precision that is trained with a loss scaler."""
    by_precision = steps.runs(trace)
    if steps.agreed(steps.failed(run) for run in by_precision.get("float32", [])):
        return  # what fails without scaling is no fault of the scale
    for precision, runs in by_precision.items():
        collapsed = [run for run in runs if _collapsed(run, skipped)]
        if not steps.agreed(run in collapsed for run in runs):
            continue
        run = collapsed[0]
        rows, born = run["rows"], run["birth"]
        left_out = sum(row["skipped"] for row in rows)
        fall = f"the loss scale falls from {rows[0]['scale']:g} to {rows[-1]['scale']:g}"
        finding = Finding(
            Severity.ERROR,
            f"{fall} and {left_out} of {len(rows)} steps are skipped; {_scale_one(run)}",
            phase="step",
            precisions=[precision],
            label=f"{left_out} of {len(rows)} steps are skipped",
            evidence={"scales": [row["scale"] for row in rows], "skipped": left_out, "structural": run["structural"]}
            | {"whole_model": left_out == len(rows)},
            fixes=_fixes(run),
        )
        if born:
            finding.module, finding.op = born["layer"] or born["module"], born["op"]
            finding.phase = born["phase"] if born["phase"] in ("backward", "step") else "forward"
            finding.location = steps.place(born) or trace.modules.get(finding.module)
            kind = "NaN" if born["kind"] == "nan" else "infinity"
            finding.notes.append(
                f"cause: the first {kind} is made by `{born['op']}` in {born['phase']}, at scale {born['scale']:g}"
            )
            finding.evidence["birth"] = born
        yield finding


def _collapsed(run: dict[str, Any], skipped: float) -> bool:
    rows = run["rows"]
    if not any(row["skipped"] for row in rows):
        return False
    first = next((k for k, row in enumerate(rows) if not row["skipped"]), None)
    if first is None:
        return bool(run["structural"] or rows[-1]["scale"] < 1.0)
    after = rows[first:]
    return bool(rows[-1]["scale"] < 1.0 or sum(row["skipped"] for row in after) > skipped * len(after))


def _scale_one(run: dict[str, Any]) -> str:
    if run["structural"]:
        return "the overflow is there at scale 1, too: no loss scale can help"
    if run["first_scale_that_works"] is not None:
        return f"without scaling the step is finite, and a scale of {run['first_scale_that_works']:g} was accepted once"
    return "without scaling the step is finite"


def _fixes(run: dict[str, Any]) -> list[Fix]:
    bfloat16 = Fix("bfloat16", "use bfloat16, which has the range of float32 and needs no scaling")
    if run["structural"]:
        island = Fix("float32-island", "run the op that overflows in float32")
        return [island, bfloat16]
    scale = run["first_scale_that_works"] or 1.0
    lower = Fix("loss-scaling", f"start the scaler at {scale:g}")
    clipping = Fix("gradient-clipping", "clip the unscaled gradient norm")
    return [lower, clipping, bfloat16]
