"""A softmax row that is entirely -inf.

## What it does
Looks, before every softmax and log-softmax (attention inside `scaled_dot_product_attention` and softmax by hand included),
for rows of which every logit is -inf, and names the samples and queries, and the line that masked them: the `masked_fill` or
`where`, or the addition by which two planes of `finfo.min` became -inf. An error; information where
`scaled_dot_product_attention` gives such rows 0.

## Why it matters
The softmax of such a row is NaN, in forward and backward, in every precision, and one row poisons the whole loss.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 64), nn.Linear(8, 64), nn.Linear(8, 64)

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        scores = q @ k.transpose(1, 2) / 8.0
        mask = torch.ones(16, 16, dtype=torch.bool).tril(-1)
        scores = scores.masked_fill(~mask, float("-inf"))  # expect: SD403
        weights = torch.softmax(scores, -1)
        return weights @ v


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return output.square().mean()
```

## Good
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 64), nn.Linear(8, 64), nn.Linear(8, 64)

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        scores = q @ k.transpose(1, 2) / 8.0
        mask = torch.ones(16, 16, dtype=torch.bool).tril()
        scores = scores.masked_fill(~mask, float("-inf"))
        weights = torch.softmax(scores, -1)
        return weights @ v


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return output.square().mean()
```

## What it does not detect
Rows filled with a large finite number (`finfo.min`, -1e9): their softmax is uniform over masked keys, which is harmless where
the row is padding. Rows that no probe batch masks completely.

## Thresholds
None: one row is enough.

## References
pytorch/pytorch issues 41508 and 103749 (NaN from fully masked rows); Hugging Face transformers pull request 17306 (finfo.min
planes that add up to -inf).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stabdiag.evidence.graph.author_line import line_of_op
from stabdiag.evidence.graph.softmax import MEASUREMENTS as MEASUREMENTS
from stabdiag.evidence.graph.softmax import mask_origin, softmaxes
from stabdiag.evidence.signal.units import batch_size
from stabdiag.finding import Finding, Fix, Severity, at
from stabdiag.trace import Op, Run, Trace
from stabdiag.trace.counterpart import Counterparts, reference_of
from stabdiag.trace.formats import format_of

KIND = "attention"
LEVEL = "op"
BLOCKS = True
REMEDIES = ("combine-masks", "dtype-minimum", "unmask-one-key")
explains = ("SD103",)


def check(trace: Trace) -> Iterator[Finding]:
    """Judge every softmax of every precision of the model as built."""
    reference = reference_of(trace)
    for run in trace.runs:
        if run.seed or run.step or run.precision == "float64":
            continue
        there = Counterparts(run, reference) if reference is not None else None
        for op in run.ops:
            facts = next((f for n in ("softmax", "log-softmax") if (f := op.facts.get(n)) and f.get("masked_rows")), None)
            if facts is not None and not _overflowed(run, op.inputs[0], there):
                severity = Severity.INFO if op.name == "_safe_softmax" else Severity.ERROR
                yield _finding(trace, run, op, op.inputs[0], severity, facts)
        for softmax in softmaxes(run):
            if softmax.by_hand and (rows := _rows_by_hand(run, softmax.op)):
                yield _finding(trace, run, softmax.op, softmax.logits, Severity.ERROR, {"masked_rows": rows})


def _overflowed(run: Run, logits: int, there: Counterparts | None) -> bool:
    """Whether the -inf is no mask but a logit that overflowed on its way: the reference has all of them within the range."""
    other = there.value(run, run.behind_views(logits)) if there is not None else None
    stats = other.stats if other is not None else None
    return stats is not None and not stats.neginf and stats.min > -format_of(run.precision).max


def _rows_by_hand(run: Run, op: Op) -> int:
    """Rows of exp(z) / sum(exp(z)) that are -inf throughout: told by the row maximum that was subtracted, else by the sum."""
    if not op.facts["softmax-by-hand"].get("empty_rows"):
        return 0
    exp = run.producer(run.behind_views(op.inputs[0]))
    shift = run.producer(run.behind_views(exp.inputs[0])) if exp is not None and exp.inputs else None
    if shift is not None and shift.name.startswith("sub") and len(shift.inputs) == 2:
        top = run.values[run.behind_views(shift.inputs[1])].stats
        return top.neginf if top is not None else 0
    logits = run.values[exp.inputs[0]].stats if exp is not None and exp.inputs else None
    sums = run.values[run.behind_views(op.inputs[1])]
    if logits is None or sums.stats is None or not sums.stats.zeros:
        return 0
    keys = logits.count // max(1, sums.stats.count)
    return sums.stats.zeros if logits.neginf >= keys * sums.stats.zeros else 0


def _finding(trace: Trace, run: Run, op: Op, logits: int, severity: Severity, facts: dict[str, Any]) -> Finding:
    mask = mask_origin(run, logits)
    rows, where = facts["masked_rows"], _where(run, op, facts)
    softmax_at = op.location or line_of_op(trace, op)
    mask_at = (mask.location or line_of_op(trace, mask)) if mask is not None else None
    notes = []
    if mask is not None and mask.name in ("add", "sub", "baddbmm"):
        notes.append(f"cause: `{mask.name}` turns finite masks into -inf: two large negatives add up past the format's range")
    if mask_at is not None and softmax_at is not None:
        notes.append(f"evidence: the softmax is at {softmax_at.path.rpartition('/')[2]}:{softmax_at.line}")
    outcome = "attend to nothing and get 0" if severity is Severity.INFO else "are NaN"
    return Finding(
        severity,
        f"{rows:,} softmax rows are entirely -inf and {outcome}{where}",
        precisions=[run.precision],
        label=f"masks every key{where}",
        notes=notes,
        evidence={"rows": rows, "op_index": op.index, "reaches": [op.index, *_behind(run, op)]},
        fixes=[
            Fix("unmask-one-key", "leave every query one key"),
            Fix("combine-masks", "combine boolean masks before filling once"),
        ],
        **at(op) | {"location": mask_at or softmax_at},
    )


def _behind(run: Run, op: Op) -> list[int]:
    """Ops that read what the softmax made, and the gradient ops of those: what its NaN reaches."""
    poisoned, found = {op.index}, []
    for other in run.ops[op.index + 1 :]:
        sources = {run.values[i].op for i in other.inputs}
        if sources & poisoned or other.forward in poisoned:
            poisoned.add(other.index)
            found.append(other.index)
    return found


def _where(run: Run, op: Op, facts: dict[str, Any]) -> str:
    """Which samples and queries, the first few of each."""
    if "masked_samples" not in facts:
        return ""
    shape = run.values[op.outputs[0]].shape
    batch = batch_size(run)
    samples = [i for i, n in enumerate(facts["masked_samples"]) if n]
    if len(shape) == 3 and shape[0] > batch and shape[0] % batch == 0:  # samples × heads in one dimension
        samples = sorted({i // (shape[0] // batch) for i in samples})
    queries = [i for i, n in enumerate(facts["masked_queries"]) if n]
    return f" (batch {_few(samples)}" + (f", query {_few(queries)})" if len(shape) > 2 else ")")


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:4])) + (f" and {len(numbers) - 4} more" if len(numbers) > 4 else "")
