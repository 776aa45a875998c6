"""Root or inverse function whose gradient is infinite where its operand can go.

## What it does
Runs every `sqrt`, fractional power and inverse trigonometric function of data on operands pushed to their singular point (0
for roots, ±1 for acos and asin), and reports those whose gradient stops being finite there. `sqrt(exp(v))` gets there by
itself: exp underflows to 0 at v = -104 (float32), -92.7 (bfloat16), -17.3 (float16) and overflows at 88.7 (11.09).

It also compares, at every division, root and logarithm of the probe batch, the largest gradient of the layers' outputs that the
op is computed from with that of its result: rows that are 0 before `F.normalize` multiply it by 1e12. Above 1/u = 1.7e7 all
other gradients are rounding errors beside it.

Error: such a gradient; or on the probe batch itself; or within `within` standard deviations of what feeds it, over the
samples; `sqrt(exp(v))` in any probed precision. Warning: within what training can move (30 standard deviations, a magnitude of
20, 1,500 steps of Adam for a parameter), or only for data of a special shape (two equal samples, parallel vectors, all 0) that
is not far from what was seen. Information: further out.

## Why it matters
The forward pass shows nothing: sqrt(0) = 0. Its derivative 1/(2·sqrt(0)) is infinite, and infinity times the zero gradient
behind it is NaN in every weight before it.

## Bad
```python
import torch
from torch import nn


class Distances(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(6, 4)

    def forward(self, x):
        z = self.encode(x)
        return torch.sqrt((z[:, None] - z[None]).pow(2).sum(-1))  # expect: SD606


def build_model():
    torch.manual_seed(0)
    return Distances()


def example_inputs():
    return (torch.randn(6, 6, generator=torch.Generator().manual_seed(1)),)


def loss(distances):
    return distances.mean()
```

## Good
```python
import torch
from torch import nn


class Distances(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(6, 4)

    def forward(self, x):
        z = self.encode(x)
        return torch.sqrt((z[:, None] - z[None]).pow(2).sum(-1) + 1e-6)


def build_model():
    torch.manual_seed(0)
    return Distances()


def example_inputs():
    return (torch.randn(6, 6, generator=torch.Generator().manual_seed(1)),)


def loss(distances):
    return distances.mean()
```

## What it does not detect
`torch.linalg.vector_norm`, `std` and `cdist`, whose gradient PyTorch defines as 0 at 0. A root that is only divided by
(`x / sqrt(Σx²)`) and a root of a value that can be negative: SD608. Roots inside a custom autograd function.

## Thresholds
- `within` = 10: standard deviations over the samples, of what feeds the op, within which a break is an error.

## References
- PyTorch documentation, "Autograd mechanics", gradients for non-differentiable functions.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.expressions.amplified import Amplified, amplified
from stabdiag.evidence.expressions.forms import INVERSE_TRIGONOMETRIC, ROOT, ROOT_OF_EXP
from stabdiag.evidence.expressions.judgement import Judgement, judgements
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Op, Trace

KIND = "expression"
LEVEL = "line"
REMEDIES = (
    *("angle-by-atan2", "clamp-domain", "direct-difference", "epsilon-inside", "exp-of-half", "guarded-root"),
    *("larger-epsilon", "positive", "sanitise-input", "vector-norm"),
)
explains = ("SD102", "SD608")


def check(trace: Trace, *, within: float = 10.0) -> Iterator[Finding]:
    """One finding per line."""
    lines: set[tuple[str, int] | None] = set()
    for found in judgements(trace, ROOT_OF_EXP, ROOT, INVERSE_TRIGONOMETRIC, within=within):
        if found.leaves_domain:  # SD608
            continue
        name = found.op.name
        if found.expression.form == ROOT_OF_EXP:
            message = f"`{name}` of an exp: the exponent has {found.observed()} here, and it breaks {found.limits()}"
        else:
            message = f"`{name}` at its singular point: the operand has {found.observed()} here, and it breaks {found.limits()}"
        lines.add(_line(found.op))
        yield found.finding(message, "infinite derivative where the operand ends", _fixes(found))
    run = trace.run("float32")
    for grown in amplified(run) if run is not None else ():
        if _line(grown.op) not in lines:
            yield _grown(trace, grown)


def _line(op: Op) -> tuple[str, int] | None:
    return (op.location.path, op.location.line) if op.location is not None else None


def _grown(trace: Trace, found: Amplified) -> Finding:
    """A gradient that is finite and out of all proportion: rows that are (nearly) 0, normalised with a tiny epsilon."""
    down_to = "" if found.smallest is None else f": its operand goes down to {found.smallest:.1g}"
    return Finding(
        Severity.ERROR,
        f"`{found.op.name}` multiplies the gradient by {found.factor:.1g}{down_to}",
        **at(found.op),
        precisions=trace.precisions,
        label="a gradient beside which all others are rounding errors",
        evidence={"op_index": found.op.index, "factor": found.factor, "smallest": found.smallest},
        fixes=[Fix("epsilon-inside", "give it an epsilon of the size of healthy values, or leave such rows out")],
    )


def _fixes(found: Judgement) -> list[Fix]:
    if found.expression.form == ROOT_OF_EXP:
        return [Fix("exp-of-half", "halve the exponent instead of taking the root")]
    if found.expression.form == INVERSE_TRIGONOMETRIC:
        return [Fix("clamp-domain", "stay inside the domain")]
    return [
        Fix("epsilon-inside", "put the epsilon inside the root"),
        Fix("vector-norm", "use a norm, whose gradient is 0 at 0"),
    ]
