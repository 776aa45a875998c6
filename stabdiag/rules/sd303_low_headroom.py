"""Forward values come close to the largest number of the format.

## What it does
headroom = log2(max / max|t|) in bits, over every forward value that is held in float16 and reaches the loss, read from the
reference run; constants that the author writes (masks) do not count. The op with the fewest bits is reported once per scan.
The squares of a sum written by hand are values of their own and need headroom of their own.

## Why it matters
Weights and activations grow during training. A residual stream at 30,000 survives the first step in float16 and overflows in
the first spike of the learning rate.

## Bad
```python
import torch
from torch import nn


class Tall(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 4)

    def forward(self, x):
        h = self.up(x)
        energy = (100 * h).square().mean(-1, keepdim=True)  # expect: SD303
        return self.down(h / energy.sqrt())


def build_model():
    torch.manual_seed(0)
    return Tall()


def example_inputs():
    return (torch.randn(8, 16, generator=torch.Generator().manual_seed(0)).clamp(-1.2, 1.2),)


def loss(output):
    return output.square().mean()
```

## Good
```python
import torch
from torch import nn


class Tall(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 4)

    def forward(self, x):
        h = self.up(x)
        energy = h.square().mean(-1, keepdim=True)
        return self.down(h / energy.sqrt())


def build_model():
    torch.manual_seed(0)
    return Tall()


def example_inputs():
    return (torch.randn(8, 16, generator=torch.Generator().manual_seed(0)),)


def loss(output):
    return output.square().mean()
```

## What it does not detect
Growth during training: it is a distance, not a forecast. Sums inside one kernel, which accumulate in float32.

## Thresholds
- `warning` = 3: bits below which a warning is given.
- `error` = 1: bits below which it is an error. Over 31 healthy architectures the tightest value has 9.4 to 15.3 bits in
  float16.

## References
- Micikevicius et al. 2018, Mixed Precision Training, arXiv:1710.03740.
- huggingface/transformers issue 5651: a feed-forward output at 66,246 in T5.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.numbers.prediction import headroom, overflows
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.rule import Ratchet
from stabdiag.trace import Trace
from stabdiag.trace.counterpart import reference_of
from stabdiag.trace.formats import format_of

KIND = "range"
LEVEL = "op"
BLOCKS = True
REMEDIES = ("float32-island", "kaiming-init", "scale-before", "scale-branches", "small-output-init", "xavier-init")
RATCHET = Ratchet(
    "headroom_bits",
    lambda before, now: before - now >= 1.0,
    "headroom in {precision} fell from {before:.1f} to {now:.1f} bits since the baseline",
    "headroom_bits",
)


def check(trace: Trace, *, warning: float = 3.0, error: float = 1.0) -> Iterator[Finding]:
    """The op with the least headroom in each float16 precision that was asked for and that nothing overflows."""
    reference = reference_of(trace)
    if reference is None:
        return
    for precision in ("float16", "amp-float16"):
        asked = trace.run(precision) is not None
        if not asked or overflows(reference, precision):
            continue
        tightest = headroom(reference, precision)
        if tightest is None or not 0 <= tightest[0] < warning:
            continue
        bits, op = tightest
        value = reference.output_of(op)
        assert value is not None and value.stats is not None
        yield Finding(
            Severity.ERROR if bits < error else Severity.WARNING,
            f"`{op.name}` reaches {value.stats.max_abs:,.4g}, {bits:.1f} bits below the largest {format_of(precision).name}",
            module=op.module or op.layer,
            op=op.name,
            precisions=[precision],
            location=trace.place(op),
            label=f"{bits:.1f} bits of headroom",
            evidence={"op_index": op.index, "bits": bits, "largest": value.stats.max_abs},
            fixes=[
                Fix("scale-down", "divide by a power of two before, and multiply after"),
                Fix("float32-island", "compute this expression in float32"),
                Fix("bfloat16", "use bfloat16, which has the range of float32"),
            ],
        )
