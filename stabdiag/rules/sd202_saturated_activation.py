"""A sigmoid, tanh or hard variant that works where it is flat.

## What it does
Measures, for every bounded nonlinearity, on which share of its elements the derivative is below 1 % of its largest value
(sigmoid |h| > 6, tanh |h| > 3, softsign |h| > 9, hard variants in their flat part), and how many units are there on more than
95 % of samples. h is the pre-activation. Gates of LSTM and GRU cells, `1 / (1 + exp(-x))`, and tanh from exponentials count
alike; saturation at 0 counts as much as at 1. An error needs the lower 95 % bound (Wilson) of either share above
`error_share`, a warning above `warning_share`. Both must still hold after two optimizer steps. The finding also says on which
share the derivative is exactly 0 in each precision (sigmoid above 16.6/6.2/8.3, tanh beyond 9.0/3.5/4.5 in
float32/bfloat16/float16).

## Why it matters
Where φ' is 0.01 of its maximum, so is the gradient of everything in front; two such layers leave a ten-thousandth. The layer
passes on signs instead of values and hardly learns.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 1)

    def forward(self, x):
        return self.down(torch.sigmoid(self.up(x)))  # expect: SD202


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (500 * torch.randn(64, 8, generator=torch.Generator().manual_seed(1)),)


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
        self.norm, self.up, self.down = nn.BatchNorm1d(8), nn.Linear(8, 32), nn.Linear(32, 1)

    def forward(self, x):
        return self.down(torch.sigmoid(self.up(self.norm(x))))


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean()
```

## What it does not detect
Gates that a bias holds open or closed (a factor whose pre-activation has |mean| > `deliberate` · spread): their gradient is
small but moves them when it pays, which a hard gate in its flat part cannot, so that one counts. Sigmoids of what is masked
(-inf and the like), sigmoids that are the model's output where the loss is a cross-entropy (its gradient p - y does not vanish)
or not declared, sigmoids inside the loss, softmax (SD402), and ReLU6 above 6.

## Thresholds
- `error_share` = 0.5: lower 95 % bound of the share of saturated elements, or of units saturated on 95 % of their samples.
  Worst site of 46 healthy models (`benchmarks/detection/thresholds.py`): median 0, largest 0.005; of defective ones 0.87 to 1.
- `warning_share` = 0.3. A sigmoid of N(0, s²) is saturated on 30 % of its elements at s = 5.8, a tanh at s = 2.9.
- `deliberate` = 2.0: beyond it less than 2.5 % of a gate's elements lie on the other side of its bias.
- `least_elements` = 32: independent elements (units × effective samples) below which nothing is claimed.

## References
LeCun et al. 1998, Efficient BackProp, sections 4.3-4.6; Glorot & Bengio 2010, Understanding the difficulty of training deep
feedforward neural networks; Gers et al. 2000 and Tallec & Ollivier 2018 (gate biases on purpose, arXiv:1804.11188).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import Any, Literal

from stabdiag.evidence.graph.author_line import line_of_op, line_of_weight
from stabdiag.evidence.graph.nonlinearity import SQUASHING_OPS, gates, is_output, squashing
from stabdiag.evidence.graph.origin import bias_behind, enlarged_by
from stabdiag.evidence.graph.softmax import is_masked
from stabdiag.evidence.measure.units import ROWS, rows_of
from stabdiag.evidence.signal.initialisation import LayerScale, layer_scales, remedy
from stabdiag.evidence.signal.units import Site, batch_size, effective_samples, one_per_line, probed, sites, wilson_lower
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.rule import Measurement
from stabdiag.trace import Op, Parameter, Run, Trace

KIND = "activation"
LEVEL = "layer"
REMEDIES = (
    *("batch-norm", "elu", "gelu", "instance-norm", "layer-norm", "replace-activation"),
    *("replace-activation-function", "silu", "small-output-init", "standardise-data", "standardise-input"),
    *("xavier-init", "zero-bias"),
)
explains = ("SD103", "SD204")
SATURATED_UNIT = 0.95  # share of its samples on which a saturated unit is flat
_EDGE = {  # output beyond which the derivative is below 1 % of its largest value
    "sigmoid": (0.5 - sqrt(0.99) / 2, 0.5 + sqrt(0.99) / 2),
    "tanh": (-sqrt(0.99), sqrt(0.99)),
    "softsign": (-0.9, 0.9),
}


def _facts(
    kind: str, inputs: list[Any], output: Any, unit_dim: int | None, attributes: Mapping[str, Any]
) -> dict[str, Any] | None:
    """How much of a bounded nonlinearity lies where its derivative is below 1 % of its maximum, over a fixed sample of rows.

    The pre-activation is recovered from the output: per element for the edges, and clipped to ±30 for its moments.
    """
    if output.numel() == 0 or output.dim() == 0 or not output.is_floating_point():
        return None
    known = unit_dim if unit_dim is not None else output.dim() - 1
    y = rows_of(output.detach(), known, ROWS).double()
    low, high, h = _flat(kind, y, attributes)
    flat = low | high
    return {
        "rows": output.numel() / output.shape[known],
        "sampled": y.shape[0],
        "flat": flat.sum(0),
        "high": high.sum(),
        "sum": h.clamp(-30, 30).sum(),
        "sum_sq": h.clamp(-30, 30).square().sum(),
        **{name: ((h < under) | (h > over)).sum() for name, (under, over) in ZERO_DERIVATIVE.get(kind, {}).items()},
    }


# Pre-activations below and above which the derivative, computed from the output as autograd does, is exactly 0 in a format.
ZERO_DERIVATIVE = {
    "sigmoid": {"float32": (-103.0, 16.6), "bfloat16": (-92.0, 6.2), "float16": (-16.6, 8.3)},
    "tanh": {"float32": (-9.0, 9.0), "bfloat16": (-3.5, 3.5), "float16": (-4.5, 4.5)},
}


def _flat(kind: str, y: Any, attributes: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """(at the lower edge, at the upper edge, pre-activation) of the outputs of a bounded nonlinearity."""
    if kind in _EDGE:
        low, high = _EDGE[kind]
        if kind == "softsign":
            h = y / (1 - y.abs()).clamp(min=1e-2)
        else:
            p = y if kind == "sigmoid" else (y + 1) / 2
            h = p.clamp(1e-50, 1 - 1e-16).logit() / (1 if kind == "sigmoid" else 2)
        return y < low, y > high, h
    if kind == "hardswish":
        return y == 0, y < y, y
    bottom, top = (0.0, 1.0) if kind == "hardsigmoid" else (attributes.get("min_val", -1), attributes.get("max_val", 1))
    return y <= bottom, y >= top, y - (bottom + top) / 2


def _is(kind: str, run: Run, op: Op) -> bool:
    return squashing(run, op) == kind


MEASUREMENTS = tuple(
    Measurement(f"flat-{kind}", names, partial(_facts, kind), where=partial(_is, kind), reads_inputs=False)
    for kind, names in SQUASHING_OPS.items()
)


@dataclass(frozen=True)
class Evidence:
    """What is known about one site in one run.

    Attributes:
        share: of flat elements; units: how many; flat_units: flat on more than 95 % of their samples; high: share of flat
            elements at the upper edge; bound: lower 95 % bound of the larger share; elements: independent ones.
        mean, spread: of the pre-activation, clipped to ±30; zero: precision -> share of elements whose derivative is exactly 0.
    """

    kind: str
    site: Site
    share: float
    units: int
    flat_units: int
    high: float
    bound: float
    elements: float
    mean: float
    spread: float
    zero: dict[str, float]


def check(
    trace: Trace,
    *,
    error_share: float = 0.5,
    warning_share: float = 0.3,
    deliberate: float = 2.0,
    least_elements: int = 32,
) -> Iterator[Finding]:
    """Judge every bounded nonlinearity as built, and again after two optimizer steps."""
    found: list[Finding] = []
    run = trace.run("float32")
    if run is None:
        return

    def judge(evidence: Evidence | None) -> Severity | Literal[False] | None:
        if evidence is None:
            return None
        if evidence.bound <= warning_share:
            return False
        return Severity.ERROR if evidence.bound > error_share else Severity.WARNING

    def still(other: Run, key: tuple[Any, ...]) -> Severity | Literal[False] | None:
        return judge(next((e for e in collect(other, deliberate) if e.site.key == key), None))

    for evidence in collect(run, deliberate):
        severity = judge(evidence)
        if not severity or evidence.elements < least_elements or _excused(trace, run, evidence):
            continue
        finding = _finding(trace, run, evidence.site.op, evidence, severity)
        finding.still = partial(still, key=evidence.site.key)
        found.append(finding)
    yield from one_per_line(found)


def collect(run: Run, deliberate: float) -> list[Evidence]:
    """The evidence of every site of a run whose results are finite and whose operands are not masked (an expert that was not
    chosen, a token of the future); gates that a bias holds count as working."""
    batch, found = batch_size(run), []
    for kind in SQUASHING_OPS:
        for site in sites(run, f"flat-{kind}").values():
            outs = [value.stats for op in site.ops if (value := run.output_of(op)) is not None]
            if any(s is None or s.nonfinite for s in outs) or any(is_masked(run, op.inputs[0]) for op in site.ops):
                continue
            facts = site.facts
            units, rows = len(facts["flat"]), facts["sampled"]
            count = units * rows
            working = [op.facts[f"flat-{kind}"] for op in site.ops if not _held(run, op, f"flat-{kind}", deliberate)]
            per_unit = [sum(counts) for counts in zip(*(f["flat"] for f in working), strict=True)] or [0]
            flat, mean = sum(per_unit), facts["sum"] / count
            flat_units = sum(n > SATURATED_UNIT * rows for n in per_unit)
            high = sum(f["high"] for f in working)
            elements = units * effective_samples(facts["rows"], batch, site.calls * run.batches)
            bound = wilson_lower(flat / count * elements, elements)
            if elements / units >= 1 / (1 - SATURATED_UNIT):
                bound = max(bound, wilson_lower(flat_units, units))
            found.append(
                Evidence(
                    kind,
                    site,
                    flat / count,
                    units,
                    flat_units,
                    high / flat if flat else 0.0,
                    bound,
                    elements,
                    mean,
                    sqrt(max(0.0, facts["sum_sq"] / count - mean * mean)),
                    {name: facts[name] / count for name in ZERO_DERIVATIVE.get(kind, {})},
                )
            )
    return found


def _held(run: Run, op: Op, name: str, deliberate: float) -> bool:
    """Whether a call is a gate that its bias holds open or closed: its pre-activation lies to one side of 0 throughout. Not a
    hard one: where it is flat its gradient is exactly 0, and nothing opens it again."""
    if name.startswith("flat-hard"):
        return False
    facts = op.facts[name]
    count = len(facts["flat"]) * facts["sampled"]
    mean = facts["sum"] / count
    spread = sqrt(max(0.0, facts["sum_sq"] / count - mean * mean))
    return abs(mean) > deliberate * spread and gates(run, op)


def _excused(trace: Trace, run: Run, evidence: Evidence) -> bool:
    """A sigmoid that is the output, unless the author's own loss lets its gradient vanish (a squared error)."""
    op = evidence.site.op
    if evidence.kind not in ("sigmoid", "hardsigmoid") or not is_output(run, op):
        return False
    readers = {o.name for o in run.phase("loss")}
    return "loss" not in trace.subject.declared or bool(readers & {"binary_cross_entropy", "log", "log1p"})


def _finding(trace: Trace, run: Run, op: Op, evidence: Evidence, severity: Severity) -> Finding:
    name, where = evidence.kind, op.layer or op.module or "the model"
    scale, bias, factor = _large_weight(run, op), None, None
    line = line_of_op(trace, op)
    if scale is None and (entered := run.values[run.behind_views(op.inputs[0])].stats) is not None and entered.sampled:
        one_sided = abs(entered.mean) > entered.std
        bias = bias_behind(run, op.layer, entered.mean) if one_sided else None
        factor = enlarged_by(run, op.inputs[0], layers=1) if bias is None else None
    side = "at both ends" if 0.1 < evidence.high < 0.9 else "at its upper end" if evidence.high >= 0.9 else "at its lower end"
    notes = [f"cause: the pre-activation has mean {evidence.mean:.3g}, spread {evidence.spread:.3g} (clipped to ±30)"]
    if scale is not None:
        notes[0] += f"; `{scale.parameter.name}` has std·√fan_in = {scale.gain:.3g}, {scale.wanted:.2g} is wanted"
        line = line_of_weight(trace, scale.parameter, by_call=True) or line
    elif bias is not None and bias.stats is not None:
        notes[0] += f"; `{bias.name}` averages {bias.stats.mean:.3g}"
        line = line_of_weight(trace, bias, by_call=True) or line
    elif factor is not None and (made := run.output_of(factor)) is not None and made.stats is not None:
        notes[0] += f"; a factor in front brings the signal to a root mean square of {made.stats.rms:.3g}"
        line = line_of_op(trace, factor) or line
    zero = {p: share for p, share in evidence.zero.items() if p in trace.precisions and share > 0.01}
    if zero:
        notes.append("evidence: the derivative is exactly 0 on " + ", ".join(f"{s:.0%} in {p}" for p, s in zero.items()))
    return Finding(
        severity,
        f"{evidence.share:.0%} of the `{name}` behind `{where}` is saturated {side}: derivative below 1 % of its maximum",
        precisions=probed(trace),
        label=f"{evidence.share:.0%} saturated",
        notes=notes,
        evidence={
            "saturated_share": evidence.share,
            "saturated_share_lower_bound": evidence.bound,
            "units": evidence.units,
            "saturated_units": evidence.flat_units,
            "upper_share": evidence.high,
            "effective_elements": evidence.elements,
            "calls": evidence.site.calls,
            "preactivation_mean": evidence.mean,
            "preactivation_spread": evidence.spread,
            "zero_derivative": evidence.zero,
            "op_index": op.index,
        },
        fixes=_fixes(name, scale, bias, factor),
        **at(op) | {"location": line, "module": op.layer or op.module},
    )


def _large_weight(run: Run, op: Op) -> LayerScale | None:
    """The weight in front, where it is more than three times as large as a unit-variance input would need."""
    return next((s for s in layer_scales(run) if s.parameter.module == op.layer and s.ratio > 3), None)


def _fixes(kind: str, scale: LayerScale | None, bias: Parameter | None, factor: Op | None) -> list[Fix]:
    fixes = []
    if scale is not None:
        fixes.append(remedy(kind))
    elif bias is not None:
        fixes.append(Fix("zero-bias", "initialise the bias at 0"))
    elif factor is not None:
        fixes.append(Fix("no-factor", "leave the factor out"))
    else:
        fixes.append(Fix("standardise-data", "standardise what enters the layer"))
    fixes.append(Fix("layer-norm", "normalise the pre-activation"))
    fixes.append(Fix("replace-activation", f"use an activation that does not saturate instead of {kind}"))
    return fixes
