"""Units of a ReLU that never fire, on any sample or position.

## What it does
Counts, per unit (channel, feature) of every ReLU, over all samples, positions, batches, calls and time steps, whether it was
ever above zero. `F.relu`, `clamp(min=0)`, `maximum(x, 0)`, `relu6`, `threshold`, `x * (x > 0)` and `torch.where(x > 0, x, 0)`
are ReLUs alike. A unit that was silent on n effective samples (a batch of B samples with P positions each counts as B·√P)
fires on less than `firing` of all samples with probability 1 - (1-`firing`)^(n+1), its posterior under a uniform prior; the
sum of these probabilities over a layer is how many of its units are dead. Units that are always on are subtracted: where the
data hardly moves a layer (deep plain networks, a squeezed layer on a few samples), as many units are always on as always off,
and nothing is wrong with its bias.
An error needs the lower 95 % bound (Wilson) of the share that remains above `error_share` on `least_samples` effective
samples or more, or a layer that is silent as a whole; a warning needs it above `warning_share` on `warning_samples` effective
samples. The state after two optimizer steps is judged the same way: a layer that comes back to life by itself is reported as
information, one that dies in those two steps as an error at the line of the optimizer where that is the author's, else as a
warning.

## Why it matters
A dead unit has a zero gradient, so nothing that follows repairs it; a dead layer cuts everything in front of it off from the
loss.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 1)
        nn.init.constant_(self.up.bias, -10.0)  # expect: SD201

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean()
```

## Good
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 1)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean()
```

## What it does not detect
Layers of fewer than `least_units` units (the squeezed layer of a squeeze-excite block is silent by chance), ReLUs whose units
cannot be told from positions unless they are silent as a whole, units that fire too rarely to learn but do fire, and death
later in training than two steps (scan a checkpoint, or use `--steps`).

## Thresholds
- `error_share` = 0.5: lower 95 % bound of the share of dead units less that of units that are always on. Worst layer of 63
  healthy models (`benchmarks/detection/thresholds.py`): median 0, largest 0.13; of defective ones 0.88 to 1. The share of
  units that were merely not seen to fire reaches 0.75 in healthy models.
- `warning_share` = 0.2.
- `firing` = 0.05: a unit that fires on less than 5 % of samples counts as dead. A silent unit counts 0.82 after 32 effective
  samples, 0.96 after 60.
- `warning_samples` = 300: effective samples that a warning needs; 3/n is 1 % there.
- `least_units` = 16: all 8 units of a layer are off together with probability 1/256 in a healthy model, 16 with 1.5e-5.
- `least_samples` = 32: effective samples that a claim about part of a layer needs, `whole_samples` = 8: about a whole one.

## References
Lu et al. 2019, Dying ReLU and Initialization (arXiv:1903.06733); Hanley & Lippman-Hand 1983, If nothing goes wrong, is
everything all right? (JAMA 249:1743); Wilson 1927 (interval).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any, Literal

from stabdiag.evidence.graph.author_line import line_of_op, line_of_weight
from stabdiag.evidence.graph.nonlinearity import RELU_OPS, is_relu
from stabdiag.evidence.graph.origin import bias_behind, one_sided_weight
from stabdiag.evidence.measure.units import relu_facts
from stabdiag.evidence.signal import steps
from stabdiag.evidence.signal.units import (
    Site,
    batch_size,
    effective_samples,
    moments,
    one_per_line,
    probed,
    rarely,
    sites,
    wilson_lower,
)
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.rule import Measurement
from stabdiag.trace import Parameter, Run, Trace, merged

KIND = "activation"
LEVEL = "layer"
REMEDIES = (
    *("batch-norm", "elu", "gelu", "kaiming-init", "leaky-relu", "leaky-relu-function", "lower-learning-rate"),
    *("prelu", "silu", "zero-bias"),
)

MEASUREMENTS = (Measurement("relu", RELU_OPS, relu_facts, where=is_relu),)
explains = ("SD101", "SD103", "SD204", "SD806")


@dataclass(frozen=True)
class Evidence:
    """What is known about one ReLU site in one run.

    Attributes:
        units, dead: how many, and how many of them fire too rarely, by the posterior; silent: never fired at all.
        samples: effective; bound: lower 95 % bound of the share by which dead units
            outnumber those that are always on.
        mean, spread: of the pre-activation over all units; silent_mean: over the silent ones.
    """

    site: Site
    units: int
    silent: int
    dead: int
    samples: float
    bound: float
    mean: float
    spread: float
    silent_mean: float

    @property
    def whole(self) -> bool:
        """No unit ever fired."""
        return self.silent == self.units


def check(
    trace: Trace,
    *,
    error_share: float = 0.5,
    warning_share: float = 0.2,
    firing: float = 0.05,
    warning_samples: int = 300,
    least_units: int = 16,
    least_samples: int = 32,
    whole_samples: int = 8,
) -> Iterator[Finding]:
    """Judge every ReLU of the model as built and after two optimizer steps."""

    found: list[Finding] = []

    def judge(evidence: Evidence) -> Severity | None:
        if evidence.samples < whole_samples or evidence.units < least_units:
            return None
        if evidence.whole or (evidence.bound > error_share and evidence.samples >= least_samples):
            return Severity.ERROR
        counted = evidence.samples >= warning_samples
        return Severity.WARNING if counted and evidence.bound > warning_share else None

    first, later = trace.run("float32"), trace.run("float32", step=2)
    if first is None:
        return
    before = {e.site.key: e for e in collect(first, firing)}
    after = {e.site.key: e for e in collect(later, firing)} if later is not None else {}

    def there(evidence: Evidence | None) -> Severity | Literal[False] | None:
        severity = judge(evidence) if evidence is not None else None
        revived = evidence is not None and evidence.silent < evidence.units * warning_share
        return False if severity is None and revived else severity

    def still(other: Run, key: tuple[Any, ...]) -> Severity | Literal[False] | None:
        return there(next((e for e in collect(other, firing) if e.site.key == key), None))

    for key, start in before.items():
        end, severity = after.get(key), judge(start)
        then = judge(end) if end is not None else None
        if severity is not None:
            finding = _finding(trace, first, start, severity, _steps(start, end, there(end) is False))
            finding.still, finding.fades = partial(still, key=key), Severity.INFO
            found.append(finding)
        elif end is not None and then is not None and later is not None:
            if end.silent - start.silent < warning_share * end.units:
                continue
            known = "optimizer" in trace.subject.declared
            note = f"evidence: {start.silent} of {start.units} units were silent before the two steps, {end.silent} after"
            found.append(_finding(trace, later, end, then if known else Severity.WARNING, note, died=True))
    yield from one_per_line(found)


def collect(run: Run, firing: float) -> list[Evidence]:
    """The evidence of every ReLU site of a run whose results are finite."""
    batch = batch_size(run)
    found = []
    for site in sites(run, "relu").values():
        out = merged(value.stats for op in site.ops if (value := run.output_of(op)) is not None)
        if out is None or out.nonfinite:
            continue
        facts, batches = site.facts, run.batches
        samples = effective_samples(facts["rows"], batch, site.calls * batches)
        per_unit = moments(facts["sum"], facts["sum_sq"], facts["sampled"])
        silent = [(m, s) for fired, (m, s) in zip(facts["fired"], per_unit, strict=True) if not fired]
        dead = round(len(silent) * rarely(samples, firing))
        steady = sum(n == site.calls * batches for n in facts["steady"])
        units = len(per_unit)
        mean = sum(m for m, _ in per_unit) / units
        spread = sqrt(sum(s * s for _, s in per_unit) / units)
        low = sum(m for m, _ in silent) / len(silent) if silent else 0.0
        found.append(
            Evidence(site, units, len(silent), dead, samples, wilson_lower(max(0, dead - steady), units), mean, spread, low)
        )
    return found


def _steps(start: Evidence, end: Evidence | None, revived: bool) -> str:
    if end is None:
        return ""
    after = f"{end.silent} of {end.units} after two optimizer steps"
    return f"evidence: {start.silent} of {start.units} units are silent as built, {after}" + (
        ": the layer comes back by itself" if revived else ""
    )


def _finding(trace: Trace, run: Run, evidence: Evidence, severity: Severity, note: str, died: bool = False) -> Finding:
    op = evidence.site.op
    name = op.layer or op.module or "the model"
    blamed = None if died else _blamed(run, evidence)
    count = evidence.silent
    when = " after two optimizer steps" if died else ""
    rows = round(evidence.site.facts["rows"])
    threshold = op.attributes.get("threshold") or 0.0
    moments = f"the pre-activation has mean {evidence.mean + threshold:.3g}, spread {evidence.spread:.3g} per unit"
    over = f"; the threshold is {threshold:g}" if threshold else ""
    said = f"`{blamed.name}` averages {blamed.stats.mean:.3g}; " if blamed is not None and blamed.stats is not None else ""
    notes = [f"cause: {said}{moments}{over}"]
    line = line_of_op(trace, op)
    written = line_of_weight(trace, blamed, by_call=True) if blamed is not None else None
    if died and "optimizer" in trace.subject.declared:
        written = steps.place(steps.optimizer(trace))
    finding = Finding(
        severity,
        f"{count} of {evidence.units} units behind `{name}` never fire{when}: 0 of {rows:,} values each",
        precisions=probed(trace),
        label=f"{count} of {evidence.units} units never fire",
        notes=notes + ([note] if note else []),
        evidence={
            "units": evidence.units,
            "dead": evidence.dead,
            "silent": evidence.silent,
            "dead_share_lower_bound": evidence.bound,
            "effective_samples": evidence.samples,
            "rows": rows,
            "calls": evidence.site.calls,
            "batches": run.batches,
            "preactivation_mean": evidence.mean,
            "preactivation_spread": evidence.spread,
            "seeds": [_share(other, evidence.site) for other in trace.seeds() if other.seed],
            "op_index": op.index,
        },
        fixes=_fixes(blamed, died, threshold),
        **at(op) | {"location": written or line, "module": op.layer or op.module},
    )
    if written is not None and line is not None:
        finding.notes.append(f"evidence: the ReLU is at {line.path.rpartition('/')[2]}:{line.line}")
    return finding


def _share(run: Run, site: Site) -> float | None:
    other = sites(run, "relu").get(site.key)
    if other is None:
        return None
    return sum(not fired for fired in other.facts["fired"]) / len(other.facts["fired"])


def _blamed(run: Run, evidence: Evidence) -> Parameter | None:
    """What pushes the pre-activation below zero: the bias of the layer in front, or a weight on one side of zero."""
    mean = evidence.silent_mean
    if mean >= 0:
        return None
    x = next((i for i in evidence.site.op.inputs if run.values[i].kind == "result"), evidence.site.op.inputs[0])
    return bias_behind(run, evidence.site.op.layer, mean) or one_sided_weight(run, x, mean)


def _fixes(blamed: Parameter | None, died: bool, threshold: float) -> list[Fix]:
    fixes = []
    if died:
        fixes.append(Fix("lower-learning-rate", "lower the learning rate or warm it up"))
    elif blamed is not None and len(blamed.shape) == 1:
        fixes.append(Fix("zero-bias", "initialise the bias at 0"))
    elif threshold > 0:
        fixes.append(Fix("lower-threshold", "let everything above 0 pass"))
    else:
        fixes.append(Fix("kaiming-init", "initialise the layer for a ReLU"))
    fixes.append(Fix("leaky-relu", "let a little gradient through where the unit is off"))
    return fixes
