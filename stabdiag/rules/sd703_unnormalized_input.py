"""The data reaches the first trained layer far from unit scale, or its features differ by orders of magnitude.

## What it does
Judges the data as declared, where it reaches each first trained layer, per feature (channel, column) over the batches.

- Scale: the root mean square over all elements, of the declared data and of what the layer reads, whichever is smaller: data
  that the model scales down is in order, and a factor with which it enlarges them is its own doing. Warning when more than 1 %
  of the elements exceed 10 in magnitude, the mean square exceeds 100, and what the layer makes of them has a root mean square
  above 3; error when the mean square exceeds 1000 and that root mean square 10. The largest stable learning rate of the first
  layer falls with the mean square of its input, so by a factor of 1000.
- Ratio: the largest root mean square of a feature over the smallest one that is not zero. Warning above 1e3, error above
  4096 = 2^12: the squared ratio bounds the condition number of the layer's Hessian from below, and above 2^24 = 1/u,
  float32 cannot represent a step that serves both features. Only for features that are as declared, at most moved, selected
  or scaled by one number: what the model computes (sines, Gaussians, powers) is small or large on purpose.
- NaN or infinite elements: error.

The place is the line of `example_inputs` that made the data, where that is known, else the line where it enters the model.

Only declared data is judged: synthetic inputs say nothing about data. Ids go to tables and masks to comparisons or
products, never into a layer, so they do not count. A normalisation directly behind the layer makes it scale-free: the scale is
then silent, and a ratio a warning at most.

## Why it matters
Saturated units, an initial loss far above that of guessing, a learning rate that is right for one feature and 1000 times
too large or too small for another; in float16 the first layer overflows.

## Bad
```python
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.features(x))
        return self.head(x.mean((2, 3)))


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    pixels = torch.randint(0, 256, (8, 3, 16, 16), generator=torch.Generator().manual_seed(1))  # expect: SD703
    return (pixels.float(),)


def loss(out):
    return F.cross_entropy(out, torch.arange(8) % 4)
```

## Good
```python
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.features(x / 127.5 - 1))
        return self.head(x.mean((2, 3)))


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randint(0, 256, (8, 3, 16, 16), generator=torch.Generator().manual_seed(1)).float(),)


def loss(out):
    return F.cross_entropy(out, torch.arange(8) % 4)
```

## What it does not detect
Features that the model computes from the data, targets out of scale, data of the right scale with the wrong offset, and inputs
that enter by other ways than a layer (coordinates of a sampling grid, initial states).

## Thresholds
Measured (`benchmarks/detection/thresholds.py`: 31 published architectures, 64 healthy and 46 ill models of its own; 0, 5,
50, 95, 100 % of each):

- `share` = 0.01: of elements beyond 10 in magnitude, for a warning. Standardised data: 0; pixels 0 to 255: 0.96.
- `mean_square` = 100 and `error_mean_square` = 1000: of the data. Healthy 0.01, 0.87, 1, 1.05, 2.6;
  ill 2.2e4, 2.2e4, 5e8, 1e9, 2e11; networks on coordinates up to 10 (47) train as they are.
- `ratio` = 1000 and `error_ratio` = 4096: between features. Healthy 1, 1, 1.6, 1.7, 6.9; tables in their own units 7e4 to
  1.9e6.

## References
LeCun, Bottou, Orr & Müller 1998, Efficient BackProp, sections 4.3 and 5.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import sqrt
from typing import Any

from stabdiag.evidence.graph.entry import is_entry, way_of_data
from stabdiag.evidence.signal.initialisation import behind
from stabdiag.evidence.signal.units import probed
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.rule import Measurement
from stabdiag.trace import Op, Run, Trace, merged

KIND = "start"
LEVEL = "model"
REMEDIES = ("finite-data", "scale-pixels", "standardise-data", "standardise-input")
explains = ("SD303", "SD705")
MOST_FEATURES = 512
RESULT_WARNING, RESULT_ERROR = 3.0, 10.0  # root mean square of what the layer makes of the data


def _features(index: int, dim: int) -> Any:
    def measure(inputs: list[Any], output: Any, unit_dim: int | None, attributes: Any) -> Mapping[str, Any] | None:
        data = inputs[index].detach()
        if data.dim() < 2 or not data.is_floating_point() or not data.numel():
            return None
        data = data.movedim(dim, -1).flatten(0, -2).double()
        step = -(-data.shape[1] // MOST_FEATURES)
        finite = data.isfinite()
        clean = data.nan_to_num(0.0, 0.0, 0.0)
        columns = clean[:, ::step]
        return {
            "sum": columns.sum(0),
            "sum_sq": columns.square().sum(0),
            "rows": data.shape[0],
            "all_sum_sq": clean.square().sum(),
            "elements": data.numel(),
            "beyond": (clean.abs() > 10.0).sum(),
            "nonfinite": (~finite).sum(),
        }

    return measure


MEASUREMENTS = (
    Measurement("entry_columns", ("mm", "linear"), _features(0, -1), where=is_entry),
    Measurement("entry_columns_biased", ("addmm",), _features(1, -1), where=is_entry),
    Measurement("entry_channels", ("convolution", "_convolution", "mkldnn_convolution"), _features(0, 1), where=is_entry),
)


def check(
    trace: Trace,
    *,
    share: float = 0.01,
    mean_square: float = 100.0,
    error_mean_square: float = 1000.0,
    ratio: float = 1000.0,
    error_ratio: float = 4096.0,
) -> Iterator[Finding]:
    """One finding per line at which data enters."""
    run = trace.run("float32")
    if run is None or "inputs" not in trace.subject.declared:
        return
    told: set[tuple[str, ...]] = set()
    for op in run.phase("forward"):
        fact = next((op.facts[m.name] for m in MEASUREMENTS if m.name in op.facts), None)
        if fact is None:
            continue
        inputs, declared = way_of_data(run, op)
        names = tuple(sorted(inputs))
        if names in told:
            continue
        limits = (share, mean_square, error_mean_square)
        judged = _not_finite(run, op, fact) or _unequal(run, op, fact, ratio, error_ratio) if declared else None
        judged = judged or _large(run, op, fact, names, *limits)
        if judged is not None:
            told.add(names)
            severity, said, label = judged
            yield _finding(trace, run, op, fact, severity, said, label, names)


Judged = tuple[Severity, str, str]  # severity, message, label


def _not_finite(run: Run, op: Op, fact: dict[str, Any]) -> Judged | None:
    if not fact["nonfinite"]:
        return None
    return Severity.ERROR, f"{fact['nonfinite']} of {fact['elements']} input elements are NaN or infinite", "not finite"


def _unequal(run: Run, op: Op, fact: dict[str, Any], ratio: float, error_ratio: float) -> Judged | None:
    """Features of different scales, as declared."""
    scales = [sqrt(s / fact["rows"]) for s in fact["sum_sq"] if s > 0]
    spread = max(scales) / min(scales) if scales else 1.0
    if spread <= ratio:
        return None
    severity = Severity.ERROR if spread > error_ratio and not behind(run, op)[1] else Severity.WARNING
    said = f"input features differ in scale by {spread:.2g}: root mean squares from {min(scales):.2g} to {max(scales):.2g}"
    return severity, said, f"features from {min(scales):.2g} to {max(scales):.2g}"


def _large(
    run: Run, op: Op, fact: dict[str, Any], names: tuple[str, ...], share: float, mean_square: float, error_mean_square: float
) -> Judged | None:
    """Data that is large as declared, and still is where the layer reads it."""
    if fact["nonfinite"] or behind(run, op)[1]:
        return None
    rms = sqrt(fact["all_sum_sq"] / fact["elements"])
    declared = merged(v.stats for v in run.values if v.kind == "input" and v.name in names)
    least = min(rms, declared.rms) if declared is not None and declared.sampled else rms
    result = run.output_of(op)
    made = result.stats.rms if result is not None and result.stats is not None else 0.0
    beyond = fact["beyond"] / fact["elements"]
    if beyond <= share or least * least <= mean_square or made <= RESULT_WARNING:
        return None
    severity = Severity.ERROR if least * least > error_mean_square and made > RESULT_ERROR else Severity.WARNING
    return (
        severity,
        f"inputs have a root mean square of {rms:.3g} and {beyond:.0%} of them exceed 10",
        f"data of root mean square {rms:.3g}",
    )


def _finding(
    trace: Trace, run: Run, op: Op, fact: dict[str, Any], severity: Severity, said: str, label: str, names: tuple[str, ...]
) -> Finding:
    rows = fact["rows"]
    means = [s / rows for s in fact["sum"]]
    fixes = [Fix("standardise-data", "standardise the features")]
    stats = next((v.stats for v in run.values if v.kind == "input" and v.name in names and v.stats is not None), None)
    if stats is not None and stats.min >= 0 and 2 < stats.max <= 255:
        fixes.insert(0, Fix("scale-pixels", "bring pixels to -1 … 1"))
    entry = trace.place(op)
    made = next((at for name in names if (at := trace.data.get(name)) is not None), None)
    notes = [f"evidence: declared inputs, {fact['elements']} elements in {len(means)} features, over {run.batches} batches"]
    if made is not None and entry is not None:
        notes.append(f"evidence: it enters the model at {entry.path.rpartition('/')[2]}:{entry.line}")
    return Finding(
        severity,
        said,
        module=op.module or op.layer,
        op=op.name,
        precisions=probed(trace),
        location=made or entry,
        label=label,
        notes=notes,
        evidence={
            "rms": sqrt(fact["all_sum_sq"] / fact["elements"]) if fact["elements"] else None,
            "beyond_10": fact["beyond"] / fact["elements"],
            "nonfinite": fact["nonfinite"],
            "inputs": list(names),
            "op_index": op.index,
            "reaches": _reaches(run, op),
        },
        fixes=fixes,
    )


def _reaches(run: Run, op: Op, most: int = 400) -> list[int]:
    """Ops behind the entry: what is saturated or too large there is so because of the data."""
    reached: list[int] = []
    front, seen = list(op.outputs), set()
    while front and len(reached) < most:
        for reader in run.consumers(front.pop(0)):
            if reader.index not in seen and reader.phase in ("forward", "loss"):
                seen.add(reader.index)
                reached.append(reader.index)
                front.extend(reader.outputs)
    return reached
