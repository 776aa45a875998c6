"""An op raises because of its numbers: a matrix that cannot be factorised, a value that an op or a distribution refuses.

## What it does
Reports the exception at the author's line, with what was given: of a matrix the smallest and largest eigenvalue (singular
value, where it is not symmetric) and its condition number, of other operands their range. An exception is about numbers when
its type says so (`LinAlgError`, `ZeroDivisionError`, `OverflowError`), when an op raised whose operand is outside of what it
accepts (`multinomial`, `bernoulli`, `binary_cross_entropy`, `poisson`, `normal`), or when `torch.distributions` refused an
argument. Everything else that raises is an error of the program and ends the scan. The other precisions are judged as ever.

## Why it matters
A kernel matrix of points that lie close together is positive definite on paper and not in float32. Training stops with a
traceback, often days in, and the next run stops elsewhere.

## Bad
```python
import torch
from torch import nn


class Smooth(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        gram = torch.exp(-((x[:, None] - x[None, :]) ** 2) * self.scale)
        lower = torch.linalg.cholesky(gram)  # expect: SD306
        return lower.diagonal().log().sum()


def build_model():
    return Smooth()


def example_inputs():
    return (torch.linspace(0, 1, 40),)


def loss(output):
    return output.square()
```

## Good
```python
import torch
from torch import nn


class Smooth(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        gram = torch.exp(-((x[:, None] - x[None, :]) ** 2) * self.scale)
        lower = torch.linalg.cholesky(gram + 0.1 * torch.eye(len(x), dtype=x.dtype))
        return lower.diagonal().log().sum()


def build_model():
    return Smooth()


def example_inputs():
    return (torch.linspace(0, 1, 40),)


def loss(output):
    return output.square()
```

## What it does not detect
Matrices that can be factorised on the probed batches and not on others, and results without an exception: `cholesky_ex`,
`pinv`, the gradient of eigenvectors whose eigenvalues are equal (SD301).

## Thresholds
None: an op raises or it does not.

## References
- Higham 2002, Accuracy and Stability of Numerical Algorithms, 10.1: a Cholesky factorisation succeeds where the smallest
  eigenvalue is above about n·u times the largest.
- Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, A.4: a small multiple of the identity.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Op, Raised, Run, Trace
from stabdiag.trace.formats import format_of

KIND = "range"
LEVEL = "op"
BLOCKS = True
REMEDIES = (
    *("bce-with-logits", "diagonal-jitter", "finite-data", "float64-island", "guarded-division", "guarded-root"),
    *("positive", "slogdet"),
)
explains = ("SD002",)


def check(trace: Trace) -> Iterator[Finding]:
    """One finding per precision that raised in its first run."""
    for run in trace.runs:
        if run.raised is not None and run.precision != "float64" and not run.seed and not run.step:
            yield _finding(trace, run, run.raised)


def _finding(trace: Trace, run: Run, raised: Raised) -> Finding:
    op = run.ops[raised.op] if raised.op is not None else None
    source = run.ops[op.forward] if op is not None and op.forward is not None else op
    facts = raised.facts
    given = _given(facts)
    wide = trace.run("float64")
    notes = [f"evidence: {_limit(run, facts)}"] if "size" in facts else []
    if run.precision == "float32" and wide is not None:
        notes.append("evidence: in float64 it does not raise")
    return Finding(
        Severity.ERROR,
        f"raises because of its numbers: {raised.message.split('. ')[0].rstrip('.')}" + (f"; given {given}" if given else ""),
        module=(source.module or source.layer) if source is not None else "",
        op=source.name if source is not None else "",
        phase="backward" if op is not None and op.phase == "backward" else "forward",
        precisions=[run.precision],
        location=raised.location or (trace.place(source) if source is not None else None),
        label=given or "raises here",
        notes=notes,
        evidence={**facts, **({"op_index": op.index} if op is not None else {})},
        fixes=list(_fixes(op, raised)),
    )


def _given(facts: dict[str, object]) -> str:
    """The operand in words."""
    if facts.get("nonfinite"):
        return f"{facts['nonfinite']:,} elements that are not finite"
    if "size" in facts:
        smallest, largest = float(str(facts["smallest"])), float(str(facts["largest"]))
        kind = "eigenvalues" if facts["symmetric"] else "singular values"
        nearest = abs(smallest)
        condition = f"condition {max(abs(largest), nearest) / nearest:.2g}" if nearest > 0 else "singular"
        return f"{kind} from {smallest:.3g} to {largest:.3g} ({condition})"
    if "min" in facts:
        demanded = f" where it wants {facts['demands']}" if facts["demands"] else ""
        return f"values from {facts['min']:.4g} to {facts['max']:.4g}{demanded}"
    return str(facts["demands"]) and f"no {facts['demands']}"


def _limit(run: Run, facts: dict[str, object]) -> str:
    """What rounding alone leaves of an eigenvalue."""
    size = int(str(facts["size"]))
    moved = size * format_of(run.precision).unit_roundoff * float(str(facts["largest"]))
    return f"rounding in {run.precision} moves eigenvalues of a {size}×{size} matrix like this by about {moved:.1g}"


def _fixes(op: Op | None, raised: Raised) -> Iterator[Fix]:
    name = op.name if op is not None else ""
    if raised.facts.get("nonfinite"):
        yield Fix("finite-data", "keep what goes in finite")
    elif "size" in raised.facts and "cholesky" in name:
        yield Fix("diagonal-jitter", "add a small multiple of the identity, above what rounding moves its eigenvalues by")
    elif "size" in raised.facts:
        yield Fix("diagonal-jitter", "add a small multiple of the identity (or fix one unknown), so that it has an inverse")
        yield Fix("pseudo-inverse", "use torch.linalg.pinv or lstsq, where the smallest solution is meant")
    elif name == "binary_cross_entropy":
        yield Fix("bce-with-logits", "return logits and use binary_cross_entropy_with_logits")
    elif name in ("multinomial", "bernoulli"):
        yield Fix("softmax", "make probabilities of the scores: softmax for one of many, sigmoid for each")
    elif raised.facts["demands"]:
        yield Fix("positive", "map it into what is demanded: softplus plus an epsilon for scales and rates, softmax for shares")
    else:
        yield Fix("guarded-division", "keep the divisor away from 0")
    yield Fix("float64-island", "compute this expression in float64")
