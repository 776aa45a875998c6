"""A literal, an id or a position that the format cannot hold.

## What it does
Literals: a finite constant written by `masked_fill`, `full`, `fill` or `where` whose magnitude is above the format's largest
value (-1e9 in float16), read from the float32 run and reported where the precision broke at it or was not reached. Numbers put
into a tensor of the format (an element count as `torch.tensor(n, dtype=x.dtype)`) that are infinite there, where what is
computed from them is wrong. Integers: positions, counters and ids held in a 16-bit format above 2^p (256 in bfloat16, 2,048 in
float16), where neighbours become equal, and that are then used as an index. Constants that depend on the dtype
(`torch.finfo(x.dtype).min`) adapt and are left alone.

## Why it matters
`masked_fill(mask, -1e9)` raises in float16; a position counter in bfloat16 skips 257 and reads another row of the table.

## Bad
```python
import torch
from torch import nn


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(20, 8), nn.Embedding(300, 8)
        self.head = nn.Linear(8, 20)

    def forward(self, ids, mask):
        position = torch.cumsum(mask.to(self.token.weight.dtype), 1) - 1  # expect: SD305
        return self.head(self.token(ids) + self.position(position.long().clamp(max=299)))


def build_model():
    torch.manual_seed(0)
    return Positions()


def example_inputs():
    ids = torch.randint(0, 20, (2, 300), generator=torch.Generator().manual_seed(0))
    return {"ids": ids, "mask": torch.ones(2, 300, dtype=torch.long)}


def loss(output):
    return output.square().mean()
```

## Good
```python
import torch
from torch import nn


class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(20, 8), nn.Embedding(300, 8)
        self.head = nn.Linear(8, 20)

    def forward(self, ids, mask):
        position = torch.cumsum(mask, 1) - 1
        return self.head(self.token(ids) + self.position(position.clamp(max=299)))


def build_model():
    torch.manual_seed(0)
    return Positions()


def example_inputs():
    ids = torch.randint(0, 20, (2, 300), generator=torch.Generator().manual_seed(0))
    return {"ids": ids, "mask": torch.ones(2, 300, dtype=torch.long)}


def loss(output):
    return output.square().mean()
```

## What it does not detect
Integers that serve as features or as angles: there SD501 measures what the rounding costs. Literals that only scale or add,
and that a softmax consumes: an overflow to -inf is as good there.

## Thresholds
None: the limits are the format's largest value and 2^p with p its significand bits.

## References
- IEEE 754-2019: consecutive integers are exact up to 2^p.
- PyTorch issue 137774 and huggingface/transformers issue 28685: positions in bfloat16; NVIDIA/apex issue 93: -1e9 masks.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.graph.main_path import downstream
from stabdiag.evidence.numbers.poison import WRITES_A_CONSTANT, stays_wrong
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Op, Run, Trace
from stabdiag.trace.counterpart import Counterparts, reference_of
from stabdiag.trace.formats import FORMATS, Format, format_of

KIND = "expression"
LEVEL = "line"
BLOCKS = True
REMEDIES = ("clamp-before-cast", "dtype-minimum", "float32-phases", "integer-positions")
explains = ("SD002",)

_KEEPS_INTEGERS = frozenset(
    ["cumsum", "add", "sub", "rsub", "clamp", "clamp_min", "clamp_max", "neg", "relu", "cat", "stack", "where", "masked_fill"]
)


def check(trace: Trace) -> Iterator[Finding]:
    """Literals of the float32 graph, integers of every 16-bit run."""
    base = trace.run("float32")
    broken = {missing.precision for missing in trace.not_run} - {"float64", "float32"}
    for precision in sorted(broken):
        if base is not None:
            yield from _literals(trace, base, precision)
    for run in trace.runs:
        if run.precision not in ("float64", "float32") and not run.step and not run.seed:
            yield from _integers(trace, run, format_of(run.precision))
            yield from _tensors(trace, run, format_of(run.precision))


def _tensors(trace: Trace, run: Run, limits: Format) -> Iterator[Finding]:
    """Numbers put into a tensor of the format that are infinite there, where what is computed from them is wrong."""
    reference = reference_of(trace)
    there = None if reference is None else Counterparts(run, reference)
    for op in run.phase("forward", "loss"):
        same = there.op(op) if there is not None else None
        if reference is None or same is None or len(same.inputs) != len(op.inputs):
            continue
        for mine, other in zip(op.inputs, same.inputs, strict=True):
            value, wide = run.values[mine], reference.values[other]
            if value.kind != "constant" or value.stats is None or wide.stats is None or wide.stats.nonfinite:
                continue
            if value.stats.nonfinite and wide.stats.max_abs > limits.max and stays_wrong(run, op):
                yield _finding(
                    trace,
                    run.precision,
                    op,
                    f"the number {wide.stats.max_abs:,.7g} does not exist in {limits.name}, whose range ends at "
                    f"±{limits.max:,.5g}: as a tensor of that type it is infinite",
                    f"infinite in {limits.name}",
                    {"op_index": op.index, "constant": wide.stats.max_abs, "reaches": downstream(run, op.index)},
                    [Fix("python-number", "keep it a Python number, or a float32 tensor: both are exact here")],
                )
                return


def _literals(trace: Trace, base: Run, precision: str) -> Iterator[Finding]:
    """The first literal beyond the range at or behind the place where a precision broke."""
    limits, run = format_of(precision), trace.run(precision)
    there = None if run is None else Counterparts(run, base)
    reached = {op.index for o in run.ops if (op := there.op(o)) is not None} if run is not None and there is not None else set()
    for op in base.phase("forward", "loss"):
        value = next((op.attributes[k] for k in ("value", "fill_value") if k in op.attributes), None)
        if op.name not in WRITES_A_CONSTANT or op.index in reached or not isinstance(value, int | float):
            continue
        if not limits.max < abs(value) < float("inf") or abs(value) in {f.max for f in FORMATS.values()}:
            continue
        yield _finding(
            trace,
            precision,
            op,
            f"the constant {value:g} of `{op.name}` does not exist in {limits.name}, whose range ends at ±{limits.max:,.5g}",
            f"beyond ±{limits.max:,.5g}",
            {"op_index": op.index, "constant": value},
            [Fix("dtype-minimum", "use the smallest number of the tensor's own dtype")],
        )
        return


def _integers(trace: Trace, run: Run, limits: Format) -> Iterator[Finding]:
    """The first tensor of integers beyond 2^p that ends as an index."""
    whole: set[int] = set()
    for op in run.phase("forward", "loss"):
        output = run.output_of(op)
        if output is None or not output.dtype.startswith(("float", "bfloat")):
            continue
        if not (_from_integers(run, op) or (op.inputs and (op.view or op.name in _KEEPS_INTEGERS) and _whole(run, op, whole))):
            continue
        whole.update(op.outputs)
        if output.dtype != limits.name or output.stats is None or output.stats.max_abs <= 2.0**limits.digits:
            continue
        index = _used_as_index(run, op.outputs[0])
        if index is None:
            continue
        spacing = limits.spacing(output.stats.max_abs)
        yield _finding(
            trace,
            run.precision,
            op,
            f"integers up to {output.stats.max_abs:,.0f} are held in {limits.name}, exact only to {2**limits.digits:,} and "
            f"{spacing:.0f} apart at the top, and then used as an index",
            f"exact only up to {2**limits.digits:,}",
            {"op_index": op.index, "largest": output.stats.max_abs, "reaches": list(range(op.index, len(run.ops)))},
            [Fix("integer-positions", "keep positions and ids in int64")],
        )
        return


def _from_integers(run: Run, op: Op) -> bool:
    if op.name == "_to_copy":
        return bool(op.inputs) and run.values[op.inputs[0]].dtype.startswith(("int", "uint", "bool"))
    return op.name == "arange" and all(float(op.attributes.get(k, 0)).is_integer() for k in ("start", "end", "step"))


def _whole(run: Run, op: Op, whole: set[int]) -> bool:
    scalars = [op.attributes.get(k) for k in ("other", "min", "max", "value")]
    integral = all(isinstance(s, bool | int) or (isinstance(s, float) and s.is_integer()) for s in scalars if s is not None)
    floats = [v for v in op.inputs if run.values[v].dtype.startswith(("float", "bfloat"))]
    return integral and bool(floats) and all(v in whole for v in floats)


def _used_as_index(run: Run, value_id: int, steps: int = 12) -> Op | None:
    """The op that turns the value into integers again, through ops that keep integers."""
    for op in run.consumers(value_id):
        if op.phase == "backward" or not op.outputs:
            continue
        output = run.values[op.outputs[0]]
        if op.name == "_to_copy" and output.dtype.startswith("int"):
            return op
        if steps and (op.view or op.name in _KEEPS_INTEGERS) and output.dtype.startswith(("float", "bfloat")):
            found = _used_as_index(run, op.outputs[0], steps - 1)
            if found is not None:
                return found
    return None


def _finding(
    trace: Trace, precision: str, op: Op, message: str, label: str, evidence: dict[str, object], fixes: list[Fix]
) -> Finding:
    return Finding(
        Severity.ERROR,
        message,
        module=op.module or op.layer,
        op=op.name,
        precisions=[precision],
        location=trace.place(op),
        label=label,
        evidence=evidence,
        fixes=fixes,
    )
