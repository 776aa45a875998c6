"""A sigmoid, tanh or hard variant that works where it is flat.

## What it does
Measures, for every bounded nonlinearity, how much of the gradient behind it comes back in front of it, in units of its
largest derivative: ‖∂L/∂h‖ / (φ'max·‖∂L/∂φ(h)‖), h the pre-activation; where h is read elsewhere too, or the nonlinearity is
written by hand, the root mean square of φ'(h)/φ'max. Gates of LSTM and GRU cells, `1 / (1 + exp(-x))`, and tanh from
exponentials count alike; saturation at 0 counts as much as at 1. A warning needs the measure below `passes`, an error its upper
95 % bound (Wilson), as built and after two optimizer steps. Where not the data but the model's own weight, bias or factor makes
h large, `passes_own` takes its place. That units are flat is no finding by itself: where half of them are, the others still
pass most of the gradient.

A gate that a bias holds open or closed (a factor whose pre-activation has |mean| > `deliberate` · spread) is meant, as long as
its derivative can be told from nothing beside its value: below `closed` of its maximum 1 − σ rounds to 0 or σ to 1 ± nothing,
and the state behind it never changes.

The finding also says on which share of the elements the derivative is below 1 % of its largest value (sigmoid |h| > 6, tanh
|h| > 3, softsign |h| > 9, hard variants in their flat part), and exactly 0 in each precision (sigmoid above 16.6/6.2/8.3, tanh
beyond 9.0/3.5/4.5 in float32/bfloat16/float16).

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
Layers whose pre-activation is large but crosses 0 often enough (a tanh of N(0, s²) up to s = 19, a sigmoid up to s = 37): tanh
networks on coordinates up to 10 train to 100 % with four fifths of the first layer flat. Sigmoids of what is masked (-inf and
the like), sigmoids that are the model's output where the loss is a cross-entropy (its gradient p - y does not vanish) or not
declared, sigmoids inside the loss, softmax (SD402), and ReLU6 above 6.

## Thresholds
- `passes` = 1/6, and `passes_own` = 0.3 where the model's own weight, bias or factor makes the pre-activation large: of a
  gradient. A tanh of N(0, s²) passes 0.73/√s, a sigmoid 1.03/√s. Networks on raw coordinates up to 10
  with He initialisation reach s = 14 and 0.18, and train; features in the hundreds leave 0.06, convolutions with weights of
  standard deviation 3 in front of a tanh 0.08.
- `deliberate` = 2.0: beyond it less than 2.5 % of a gate's elements lie on the other side of its bias.
- `closed` = 2^-22: four times float32's unit roundoff, over the largest derivative 1/4; a sigmoid at ±16.6. Gate biases on
  purpose reach ±10.
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
from stabdiag.evidence.graph.nonlinearity import SQUASHING_OPS, gates, is_output, shown, squashing
from stabdiag.evidence.graph.origin import bias_behind, enlarged_by
from stabdiag.evidence.graph.softmax import is_masked
from stabdiag.evidence.measure.units import ROWS, rows_of
from stabdiag.evidence.signal.depth import gradient_of
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
STEEPEST = {"sigmoid": 0.25, "tanh": 1.0, "hardsigmoid": 1 / 6, "hardtanh": 1.0}  # the largest derivative
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
    low, high, h, slope = _curve(kind, y, attributes)
    return {
        "rows": output.numel() / output.shape[known],
        "units": y.shape[1],
        "elements": y.numel(),
        "flat": (low | high).sum(),
        "passed": slope.square().sum(),
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


def _curve(kind: str, y: Any, attributes: Mapping[str, Any]) -> tuple[Any, Any, Any, Any]:
    """(at the lower edge, at the upper edge, pre-activation, share of the largest derivative) of the outputs of a bounded
    nonlinearity."""
    if kind in _EDGE:
        low, high = _EDGE[kind]
        if kind == "softsign":
            return y < low, y > high, y / (1 - y.abs()).clamp(min=1e-2), (1 - y.abs()).clamp(min=0).square()
        p = y if kind == "sigmoid" else (y + 1) / 2
        h = p.clamp(1e-50, 1 - 1e-16).logit() / (1 if kind == "sigmoid" else 2)
        return y < low, y > high, h, (4 * p * (1 - p)).clamp(min=0)
    if kind == "hardswish":
        return y == 0, y < y, y, (y != 0).to(y.dtype)
    bottom, top = (0.0, 1.0) if kind == "hardsigmoid" else (attributes.get("min_val", -1), attributes.get("max_val", 1))
    return y <= bottom, y >= top, y - (bottom + top) / 2, ((y > bottom) & (y < top)).to(y.dtype)


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
        share: of flat elements; units: how many; high: share of flat elements at the upper edge; elements: independent ones.
        passes: root mean square of the derivative over its largest value, what is left of a gradient; most: its upper 95 %
            bound.
        mean, spread: of the pre-activation, clipped to ±30; zero: precision -> share of elements whose derivative is exactly 0.
    """

    kind: str
    site: Site
    share: float
    units: int
    high: float
    elements: float
    passes: float
    most: float
    mean: float
    spread: float
    zero: dict[str, float]


def check(
    trace: Trace,
    *,
    passes: float = 1 / 6,
    passes_own: float = 0.3,
    deliberate: float = 2.0,
    closed: float = 2.0**-22,
    least_elements: int = 32,
) -> Iterator[Finding]:
    """Judge every bounded nonlinearity as built, and again after two optimizer steps."""
    found: list[Finding] = []
    run = trace.run("float32")
    if run is None:
        return

    def judge(evidence: Evidence | None, limit: float) -> Severity | Literal[False] | None:
        if evidence is None:
            return None
        if evidence.passes >= limit:
            return False
        return Severity.ERROR if evidence.most < limit else Severity.WARNING

    def still(other: Run, key: tuple[Any, ...], limit: float) -> Severity | Literal[False] | None:
        return judge(next((e for e in collect(other, deliberate, closed) if e.site.key == key), None), limit)

    for evidence in collect(run, deliberate, closed):
        if evidence.elements < least_elements or evidence.passes >= passes_own:
            continue
        cause = _cause(run, evidence.site.op)
        limit = passes if cause is None else passes_own
        severity = judge(evidence, limit)
        if not severity or _excused(trace, run, evidence):
            continue
        finding = _finding(trace, run, cause, evidence, severity)
        finding.still = partial(still, key=evidence.site.key, limit=limit)
        found.append(finding)
    yield from one_per_line(found)


def collect(run: Run, deliberate: float, closed: float) -> list[Evidence]:
    """The evidence of every site of a run whose results are finite and whose operands are not masked (an expert that was not
    chosen, a token of the future); gates that a bias holds count as working until their derivative is below `closed`."""
    batch, found = batch_size(run), []
    for kind in SQUASHING_OPS:
        name = f"flat-{kind}"
        for site in sites(run, name).values():
            outs = [value.stats for op in site.ops if (value := run.output_of(op)) is not None]
            if any(s is None or s.nonfinite for s in outs) or any(is_masked(run, op.inputs[0]) for op in site.ops):
                continue
            facts = site.facts
            count, calls = facts["elements"], site.calls * run.batches
            units = facts["units"] // calls
            square = sum(_passed(run, op, kind, deliberate, closed) * op.facts[name]["elements"] for op in site.ops) / count
            mean = facts["sum"] / count
            elements = units * effective_samples(facts["rows"], batch, calls)
            found.append(
                Evidence(
                    kind,
                    site,
                    facts["flat"] / count,
                    units,
                    facts["high"] / facts["flat"] if facts["flat"] else 0.0,
                    elements,
                    sqrt(square),
                    sqrt(1 - wilson_lower((1 - square) * elements, elements)),
                    mean,
                    sqrt(max(0.0, facts["sum_sq"] / count - mean * mean)),
                    {name: facts[name] / count for name in ZERO_DERIVATIVE.get(kind, {})},
                )
            )
    return found


def _passed(run: Run, op: Op, kind: str, deliberate: float, closed: float) -> float:
    """The share of the squared gradient, in units of φ'max², that one call hands back: as measured, else the mean of
    (φ'/φ'max)². 1 where the call is a gate that its bias holds open or closed, its pre-activation on one side of 0 throughout.
    Not a hard one: where it is flat its gradient is exactly 0, and nothing opens it again. Nor one whose derivative is lost
    beside its value: the state behind it never changes."""
    facts = op.facts[f"flat-{kind}"]
    count: float = facts["elements"]
    mean: float = facts["sum"] / count
    passed: float = facts["passed"] / count
    spread = sqrt(max(0.0, facts["sum_sq"] / count - mean * mean))
    held = abs(mean) > deliberate * spread and not kind.startswith("hard") and passed > closed * closed
    if held and gates(run, op):
        return 1.0
    steepest = STEEPEST.get(op.name)
    before, behind = gradient_of(run, op.inputs[0]), gradient_of(run, op.outputs[0])
    if steepest is None or before is None or behind is None or not behind.max_abs or _read_elsewhere(run, op):
        return passed
    share: float = min(1.0, before.norm / behind.norm / steepest)
    return share * share


def _read_elsewhere(run: Run, op: Op) -> bool:
    """Whether the pre-activation goes to other ops too, whose gradient it then also gets."""
    return any(
        o is not op and not o.view and o.phase in ("forward", "loss")
        for v in shown(run, op.inputs[0])
        for o in run.consumers(v)
    )


def _excused(trace: Trace, run: Run, evidence: Evidence) -> bool:
    """A sigmoid that is the output, unless the author's own loss lets its gradient vanish (a squared error)."""
    op = evidence.site.op
    if evidence.kind not in ("sigmoid", "hardsigmoid") or not is_output(run, op):
        return False
    readers = {o.name for o in run.phase("loss")}
    return "loss" not in trace.subject.declared or bool(readers & {"binary_cross_entropy", "log", "log1p"})


def _cause(run: Run, op: Op) -> LayerScale | Parameter | Op | None:
    """What of the model's own makes the pre-activation large: the weight in front, where it is more than three times as large
    as a unit-variance input would need, the bias, or a constant factor. None where it is the data."""
    scale = next((s for s in layer_scales(run) if s.parameter.module == op.layer and s.ratio > 3), None)
    entered = run.values[run.behind_views(op.inputs[0])].stats
    if scale is not None or entered is None or not entered.sampled:
        return scale
    bias = bias_behind(run, op.layer, entered.mean) if abs(entered.mean) > entered.std else None
    return bias or enlarged_by(run, op.inputs[0], layers=1)


def _finding(
    trace: Trace, run: Run, cause: LayerScale | Parameter | Op | None, evidence: Evidence, severity: Severity
) -> Finding:
    op = evidence.site.op
    name, where = evidence.kind, op.layer or op.module or "the model"
    line = line_of_op(trace, op)
    side = "at both ends" if 0.1 < evidence.high < 0.9 else "at its upper end" if evidence.high >= 0.9 else "at its lower end"
    notes = [f"cause: the pre-activation has mean {evidence.mean:.3g}, spread {evidence.spread:.3g} (clipped to ±30)"]
    if isinstance(cause, LayerScale):
        notes[0] += f"; `{cause.parameter.name}` has std·√fan_in = {cause.gain:.3g}, {cause.wanted:.2g} is wanted"
        line = line_of_weight(trace, cause.parameter, by_call=True) or line
    elif isinstance(cause, Parameter) and cause.stats is not None:
        notes[0] += f"; `{cause.name}` averages {cause.stats.mean:.3g}"
        line = line_of_weight(trace, cause, by_call=True) or line
    elif isinstance(cause, Op) and (made := run.output_of(cause)) is not None and made.stats is not None:
        notes[0] += f"; a factor in front brings the signal to a root mean square of {made.stats.rms:.3g}"
        line = line_of_op(trace, cause) or line
    zero = {p: share for p, share in evidence.zero.items() if p in trace.precisions and share > 0.01}
    if zero:
        notes.append("evidence: the derivative is exactly 0 on " + ", ".join(f"{s:.0%} in {p}" for p, s in zero.items()))
    return Finding(
        severity,
        f"{evidence.share:.0%} of the `{name}` behind `{where}` is saturated {side}: "
        f"{evidence.passes:.2g} of the gradient is left",
        precisions=probed(trace),
        label=f"{evidence.share:.0%} saturated",
        notes=notes,
        evidence={
            "saturated_share": evidence.share,
            "passes": evidence.passes,
            "passes_at_most": evidence.most,
            "units": evidence.units,
            "upper_share": evidence.high,
            "effective_elements": evidence.elements,
            "calls": evidence.site.calls,
            "preactivation_mean": evidence.mean,
            "preactivation_spread": evidence.spread,
            "zero_derivative": evidence.zero,
            "op_index": op.index,
        },
        fixes=_fixes(name, cause),
        **at(op) | {"location": line, "module": op.layer or op.module},
    )


def _fixes(kind: str, cause: LayerScale | Parameter | Op | None) -> list[Fix]:
    fixes = []
    if isinstance(cause, LayerScale):
        fixes.append(remedy(kind))
    elif isinstance(cause, Parameter):
        fixes.append(Fix("zero-bias", "initialise the bias at 0"))
    elif isinstance(cause, Op):
        fixes.append(Fix("no-factor", "leave the factor out"))
    else:
        fixes.append(Fix("standardise-data", "standardise what enters the layer"))
    fixes.append(Fix("layer-norm", "normalise the pre-activation"))
    fixes.append(Fix("replace-activation", f"use an activation that does not saturate instead of {kind}"))
    return fixes
