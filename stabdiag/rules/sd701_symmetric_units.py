"""Units of a layer start identical and receive identical gradients, so they stay one unit for ever.

## What it does
Two units i, j of a layer are twins when their weights and their gradients agree: |W_i - W_j| ≤ 1e-3 |W_i| and the same for
the gradients, which is a cosine above 1 - 1e-6 with equal lengths; equality need not be bitwise. Rows are compared on eight
fixed pseudo-random projections. Error when more than half of a layer's units have a twin, at the start and after two
optimizer steps. A layer whose weights are all zero and that gets no gradient at all is the extreme case. Rows of a parameter
that layers read as data (learned queries, slots, prompts) are judged alike, a warning where they are zero; and so are whole
layers: two weights that hold the same and get the same gradient are copies that stay copies (experts behind an undecided
router, critics with one target).

Rows that hold the same (not zero) and whose gradients point in one direction at the start are a warning: the layer computes one
feature, and its units part only as fast as what lies behind tells them apart.

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
Measured (`benchmarks/detection/thresholds.py`: 31 published architectures, 64 healthy and 46 ill models of its own; 0, 5,
50, 95, 100 % of each):

- `share` = 0.5: least share of units with a twin. Healthy: 0 in all 95; constant and zero initialisation, copied units: 1
  in all 12.
- `least_units` = 4: layers with fewer units are not judged.
- `least_width` = 8: numbers that a row read as data is made of; gains of one number per channel agree by chance.

## References
Goodfellow, Bengio & Courville 2016, Deep Learning, section 8.4; Chen, Goodfellow & Shlens 2016 (arXiv:1511.05641) for
copied units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stabdiag.evidence.graph.author_line import line_of_weight
from stabdiag.evidence.graph.main_path import is_layer
from stabdiag.evidence.signal.depth import weights_of
from stabdiag.evidence.signal.initialisation import behind, remedy
from stabdiag.evidence.signal.twins import copies, measure
from stabdiag.evidence.signal.units import probed
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.rule import ParameterMeasurement
from stabdiag.trace import Location, Op, Parameter, Run, Trace

KIND = "start"
LEVEL = "layer"
REMEDIES = ("break-symmetry", "kaiming-init", "orthogonal-init", "xavier-init")
explains = ("SD103", "SD205")


MEASUREMENTS = (ParameterMeasurement("twins", measure),)


def check(trace: Trace, *, share: float = 0.5, least_units: float = 4, least_width: int = 8) -> Iterator[Finding]:
    """One finding per line that initialised symmetric layers, and one per line that copied layers."""
    run = trace.run("float32")
    if run is None:
        return
    later = trace.run("float32", step=2)
    layers, tokens = _hidden(run), _tokens(run)

    def symmetric(parameter: Parameter, agree: str = "twins") -> bool:
        fact = parameter.facts.get("twins")
        if fact is None or not parameter.requires_grad:
            return False
        token = parameter.name in tokens and fact["width"] >= least_width and fact["reached"]
        alike = fact["units"] >= least_units and fact[agree] > share * fact["units"]
        return bool(alike and (token or (parameter.name in layers and not fact["leading"])))

    after = {p.name: p for p in (later or run).parameters}
    copied: dict[Location | None, list[list[Parameter]]] = {}
    for group in _copies(run, layers):
        if _copied([after[p.name] for p in group]):
            copied.setdefault(group[1].copied_at or line_of_weight(trace, group[1]), []).append(group)
    for location, groups in copied.items():
        yield _copied_finding(trace, location, groups, layers)
    # A zero router in front of copies gets no gradient because of them.
    stuck = [p for p in run.parameters if symmetric(p) and symmetric(after[p.name])]
    stuck = [p for p in stuck if p.facts["twins"]["reached"] or not copied]
    lasting = {p.name for p in stuck}
    for parameter in run.parameters:
        if parameter.name not in lasting and symmetric(parameter, "parallel"):
            fact = parameter.facts["twins"]
            if fact["reached"] and fact["width"] >= least_width and not fact["zero"]:
                stuck.append(parameter)
    places: dict[Location | None, list[Parameter]] = {}
    for parameter in stuck:
        places.setdefault(line_of_weight(trace, parameter), []).append(parameter)
    for location, parameters in places.items():
        kept = [p for p in parameters if p.name in lasting]
        yield _finding(trace, run, location, kept or parameters, tokens | layers, bool(kept))


def _hidden(run: Run) -> dict[str, Op]:
    """Weights of layers that another layer follows, with the op that applies each."""
    return {name: op for op in _followed(run) if is_layer(run, op) and op.name != "embedding" for name in weights_of(run, op)}


def _tokens(run: Run) -> dict[str, Op]:
    """Parameters whose rows are data to the layers behind them (learned queries, slots, prompts), with the op that reads it."""
    found: dict[str, Op] = {}
    for op in _followed(run):
        if not is_layer(run, op) and not op.view:
            read = (run.values[run.behind_views(i)] for i in op.inputs)
            found |= {v.name: op for v in read if v.kind == "parameter" and len(v.shape) >= 2}
    return found


def _followed(run: Run) -> list[Op]:
    """Forward ops behind which a layer reads what they made, last first."""
    behind_it: set[int] = set()
    found: list[Op] = []
    for op in sorted(run.phase("forward"), key=lambda o: -o.index):
        followed = any(reader.index in behind_it for out in op.outputs for reader in run.consumers(out))
        if followed:
            found.append(op)
        if followed or is_layer(run, op):
            behind_it.add(op.index)
    return found


def _copies(run: Run, hidden: Mapping[str, Op]) -> list[list[Parameter]]:
    """Groups of weights of different layers that hold the same and get the same gradient."""
    groups: list[list[Parameter]] = []
    for parameter in run.parameters:
        if parameter.name not in hidden or "twins" not in parameter.facts or not parameter.requires_grad:
            continue
        known = next((g for g in groups if g[0].shape == parameter.shape and _copied([g[0], parameter])), None)
        if known is None:
            groups.append([parameter])
        else:
            known.append(parameter)
    return [group for group in groups if len(group) > 1]


def _copied(group: list[Parameter]) -> bool:
    first, *others = (p.facts.get("twins") for p in group)
    return first is not None and all(other is not None and copies(first, other) for other in others)


def _copied_finding(
    trace: Trace, location: Location | None, groups: list[list[Parameter]], hidden: Mapping[str, Op]
) -> Finding:
    first, second, *_ = groups[0]
    count = sum(len(group) - 1 for group in groups)
    more = f" and {count - 1} more weights" if count > 1 else ""
    return Finding(
        Severity.ERROR,
        f"`{second.name}`{more} copied from `{first.name}`: equal weights and gradients, at the start and after two steps",
        module=second.module,
        phase="backward",
        precisions=probed(trace),
        location=location,
        label="layers that start equal stay equal",
        notes=["cause: the layers hold the same, and what follows weighs them alike"],
        evidence={
            "parameters": [p.name for group in groups for p in group],
            "op_index": hidden[second.name].index,
            "reaches": [op.index for op in hidden.values()],
        },
        fixes=[Fix("construct-separately", "construct every layer on its own"), _NOISE],
    )


def _finding(
    trace: Trace, run: Run, location: Location | None, parameters: list[Parameter], hidden: Mapping[str, Op], lasting: bool
) -> Finding:
    first = parameters[0]
    fact = first.facts["twins"]
    zero = fact["zero"] == fact["units"]
    others = f" (and {len(parameters) - 1} more layers)" if len(parameters) > 1 else ""
    nonlinearity, _ = behind(run, hidden[first.name])
    token = not is_layer(run, hidden[first.name])
    when = ", at the start and after two steps" if lasting else " at the start"
    gradient = "equal gradients" if lasting else "gradients in one direction"
    return Finding(
        Severity.WARNING if not lasting or (token and zero) else Severity.ERROR,
        f"{fact['twins' if lasting else 'parallel']} of {fact['units']} units of `{first.module or first.name}`{others} have "
        f"{'zero' if zero else 'equal'} weights and {gradient if fact['reached'] else 'no gradient at all'}{when}",
        module=first.module,
        phase="backward",
        precisions=probed(trace),
        location=location,
        label="units that start equal stay equal" if lasting else "units that start equal part slowly",
        notes=["cause: " + ("all weights start at zero" if zero else "the initial weights of the units are the same")],
        evidence={
            "units": fact["units"],
            "twins": fact["twins"],
            "parameters": [p.name for p in parameters],
            "op_index": hidden[first.name].index,
            "reaches": [op.index for op in hidden.values()] if zero else [],
        },
        fixes=[_NOISE] if token else [remedy(nonlinearity), _NOISE],
    )


_NOISE = Fix("break-symmetry", "add noise to copied units")
