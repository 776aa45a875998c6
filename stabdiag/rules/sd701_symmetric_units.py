"""Units of a layer start identical and receive identical gradients, so they stay one unit for ever.

## What it does
Two units i, j of a layer are twins when their weights and their gradients agree: |W_i - W_j| ≤ 1e-3 |W_i| and the same for
the gradients, which is a cosine above 1 - 1e-6 with equal lengths; equality need not be bitwise. Rows are compared on eight
fixed pseudo-random projections. Error when more than half of a layer's units have a twin, at the start and after two
optimizer steps. A layer whose weights are all zero and that gets no gradient at all is the extreme case.

Not counted: the last layer before the output (each of its units has a target of its own, so a zero-initialised linear or
logistic model is convex and trains), rows without a gradient in a tensor that has some (tokens that do not occur, experts
without tokens), frozen parameters. Zero-initialised heads, residual branches and LoRA matrices get different gradients per
unit and are no twins; what is stuck only until another zero has moved is different after two steps.

## Why it matters
Units with equal weights compute equal outputs; when what follows weighs them equally they get equal gradients, and no
optimizer separates them: the layer has the capacity of the few distinct units.

## Bad
```python
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        for layer in (self.one, self.two):
            nn.init.constant_(layer.weight, 0.1)  # expect: SD701

    def forward(self, x):
        return self.head(torch.tanh(self.two(torch.tanh(self.one(x)))))


def build_model():
    torch.manual_seed(0)
    net = Net()
    nn.init.zeros_(net.one.bias)
    nn.init.zeros_(net.two.bias)
    return net


def example_inputs():
    return (torch.randn(12, 6, generator=torch.Generator().manual_seed(1)),)


def loss(out):
    return F.cross_entropy(out, torch.arange(12) % 3)
```

## Good
```python
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        return self.head(torch.tanh(self.two(torch.tanh(self.one(x)))))


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(12, 6, generator=torch.Generator().manual_seed(1)),)


def loss(out):
    return F.cross_entropy(out, torch.arange(12) % 3)
```

## What it does not detect
Twins up to sign or permutation, units that are equal on the data only (SD205), layers of fewer than four units, and twins
among a layer's rows beyond the first 4096.

## Thresholds
Measured (`benchmarks/detection/gradients.py`: 31 published architectures, 64 healthy and 46 ill models of its own; 0, 5,
50, 95, 100 % of each):

- `share` = 0.5: least share of units with a twin. Healthy: 0 in all 95; constant and zero initialisation, copied units: 1
  in all 12.
- `least_units` = 4: layers with fewer units are not judged.

## References
Goodfellow, Bengio & Courville 2016, Deep Learning, section 8.4; Chen, Goodfellow & Shlens 2016 (arXiv:1511.05641) for
copied units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stabdiag.evidence.author_line import line_of_weight
from stabdiag.evidence.depth import weights_of
from stabdiag.evidence.graph import is_layer
from stabdiag.evidence.initialisation import as_code, behind, remedy
from stabdiag.evidence.units import probed
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.rule import ParameterMeasurement
from stabdiag.trace import Location, Op, Parameter, Run, Trace

explains = ("SD103", "SD205")
TOLERANCE = 1e-3
ROWS = 4096


def measure(weight: Any, gradient: Any) -> Mapping[str, Any] | None:
    """`units` that can be judged, how many of them have a `twins`, and how many have `zero` weights."""
    if weight.dim() < 2 or gradient is None or not weight.is_floating_point() or weight.shape[0] < 2 or not weight.numel():
        return None
    w, g = _projected(weight), _projected(gradient)
    if not bool(w.isfinite().all()) or not bool(g.isfinite().all()):
        return None
    reached = g.abs().amax(1) > 0
    if bool(reached.any()):
        w, g = w[reached], g[reached]
    units = w.shape[0]
    if units < 2:
        return None
    features = _scaled(w).new_zeros(units, 16)
    features[:, :8], features[:, 8:] = _scaled(w), _scaled(g)
    key = features @ _directions(features, 16)[:, 0]
    rows = features[key.argsort()]
    apart = (rows[1:] - rows[:-1]).abs().amax(1)
    same = apart <= TOLERANCE * rows.abs().amax(1)[1:]
    twin = same.new_zeros(units)
    twin[1:] |= same
    twin[:-1] |= same
    zero = (w.abs().amax(1) == 0).sum()
    return {"units": units, "twins": int(twin.sum()), "zero": int(zero), "reached": bool(reached.any())}


def _projected(tensor: Any) -> Any:
    rows = tensor[:ROWS].flatten(1).float()
    return (rows @ _directions(rows, rows.shape[1])).double()


def _directions(like: Any, length: int) -> Any:
    """Eight fixed directions that look random: sines of quadratically growing angles."""
    position = like.new_ones(length).double().cumsum(0)
    frequencies = like.new_ones(8).double().cumsum(0).sqrt()
    return ((position * position)[:, None] * frequencies * 0.7548776662).sin().to(like.dtype)


def _scaled(projections: Any) -> Any:
    size = projections.abs().amax()
    return projections / size if bool(size > 0) else projections


MEASUREMENTS = (ParameterMeasurement("twins", measure),)


def check(trace: Trace, *, share: float = 0.5, least_units: float = 4) -> Iterator[Finding]:
    """One finding per line that initialised symmetric layers."""
    run = trace.run("float32")
    if run is None:
        return
    later = trace.run("float32", step=2)
    still = {p.name for p in later.parameters if _symmetric(p, share, least_units)} if later is not None else None
    hidden = _hidden(run)
    groups: dict[Location | None, list[Parameter]] = {}
    for parameter in run.parameters:
        if not _symmetric(parameter, share, least_units) or parameter.name not in hidden or not parameter.requires_grad:
            continue
        if still is None or parameter.name in still:
            groups.setdefault(line_of_weight(trace, parameter), []).append(parameter)
    for location, parameters in groups.items():
        yield _finding(trace, run, location, parameters, hidden)


def _symmetric(parameter: Parameter, share: float, least_units: float) -> bool:
    fact = parameter.facts.get("twins")
    return fact is not None and fact["units"] >= least_units and fact["twins"] > share * fact["units"]


def _hidden(run: Run) -> dict[str, Op]:
    """Weights of layers that another layer follows, with the op that applies each."""
    behind_it: set[int] = set()
    hidden: dict[str, Op] = {}
    for op in sorted(run.phase("forward"), key=lambda o: -o.index):
        followed = any(reader.index in behind_it for out in op.outputs for reader in run.consumers(out))
        if is_layer(run, op):
            if followed and op.name != "embedding":
                hidden |= dict.fromkeys(weights_of(run, op), op)
            behind_it.add(op.index)
        elif followed:
            behind_it.add(op.index)
    return hidden


def _finding(trace: Trace, run: Run, location: Location | None, parameters: list[Parameter], hidden: dict[str, Op]) -> Finding:
    first = parameters[0]
    fact = first.facts["twins"]
    zero = fact["zero"] == fact["units"]
    others = f" (and {len(parameters) - 1} more layers)" if len(parameters) > 1 else ""
    gradient = "equal gradients" if fact["reached"] else "no gradient at all"
    nonlinearity, _ = behind(run, hidden[first.name])
    return Finding(
        "",
        "",
        Severity.ERROR,
        f"{fact['twins']} of {fact['units']} units of `{first.module or first.name}`{others} have "
        f"{'zero' if zero else 'equal'} weights and {gradient}, at the start and after two steps",
        module=first.module,
        phase="backward",
        precisions=probed(trace),
        location=location,
        label="units that start equal stay equal",
        notes=["cause: " + ("all weights start at zero" if zero else "the initial weights of the units are the same")],
        evidence={
            "units": fact["units"],
            "twins": fact["twins"],
            "parameters": [p.name for p in parameters],
            "op_index": hidden[first.name].index,
            "reaches": [op.index for op in hidden.values()] if zero else [],
        },
        fixes=[remedy(first.name, nonlinearity), _noise(first)],
    )


def _noise(parameter: Parameter) -> Fix:
    weight = as_code(parameter.name)
    return Fix("break-symmetry", "add noise to copied units", f"{weight}.data += 0.01 * torch.randn_like({weight})")
