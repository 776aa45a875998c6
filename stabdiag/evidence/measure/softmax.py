"""What is measured at a softmax while a model runs, written with tensor methods only.

Rows that are entirely -inf are counted exactly, by sample and by query. Everything else is taken over a fixed sample of rows
that keeps the heads apart: the dimension before the queries counts heads, or samples × heads where the author folded them.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, inf
from typing import Any

from stabdiag.trace.formats import FORMATS

ROWS, ELEMENTS = 1024, 1 << 17  # rows, and logits, that are looked at per call
LARGE = 9e3  # constants that people write for "masked" start at 1e4


def softmax_facts(inputs: list[Any], output: Any, unit_dim: int | None, attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of `_softmax` and `_safe_softmax`; None where there is one key only."""
    logits, dim = inputs[0].detach(), attributes.get("dim", -1)
    if logits.dim() < 1 or logits.numel() == 0 or logits.shape[dim] < 2:
        return None
    return {**masked_rows(inputs, output, unit_dim, attributes), **_rows(logits, output.detach(), dim)}


def masked_rows(inputs: list[Any], output: Any, unit_dim: int | None, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Which rows are entirely -inf: how many, by index of the first dimension and of the queries (last but the keys)."""
    logits, dim = inputs[0].detach(), attributes.get("dim", -1)
    if logits.numel() == 0:
        return {}
    if logits.shape[dim] < 1:
        return {}
    first = output.detach().select(dim, 0)  # one NaN in a row makes all of it NaN
    broken = (first != first) | (logits.select(dim, 0) == -inf)
    if broken.dim() == 0 or not bool(broken.any()):
        return {}
    where = broken.nonzero()
    dead = (logits.movedim(dim, -1)[broken] == -inf).all(-1)
    where = where[dead]
    if not where.shape[0]:
        return {}
    return {
        "masked_rows": where.shape[0],
        "masked_samples": where[:, 0].bincount(minlength=broken.shape[0]),
        "masked_queries": where[:, -1].bincount(minlength=broken.shape[-1]),
    }


def by_hand_facts(inputs: list[Any], output: Any, unit_dim: int | None, attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of exp(z) / sum(exp(z)): the logits are recovered as the logarithm of the numerator. Where that is 0, a mask and an
    underflow look alike here; both count among `zeros`."""
    above, below = inputs[0].detach(), inputs[1].detach()
    sums = [d for d in range(above.dim()) if below.dim() == above.dim() and below.shape[d] == 1 and above.shape[d] > 1]
    if len(sums) != 1 or above.numel() == 0:
        return None
    empty = (below == 0) | (below != below)
    facts = _rows(above.double().clamp(min=1e-300).log(), output.detach(), sums[0])
    if bool(empty.any()):
        where = empty.movedim(sums[0], -1).squeeze(-1).nonzero()
        facts |= {"empty_rows": where.shape[0]}
    return facts


def _rows(logits: Any, probabilities: Any, dim: int) -> dict[str, Any]:
    x, p = _thin(logits.movedim(dim, -1)), _thin(probabilities.movedim(dim, -1)).double()
    limit = FORMATS[str(logits.dtype)[6:]].max / 2
    x = x.double()
    masked = x <= -limit
    top = x.masked_fill(masked | (x != x), -inf).amax().clamp(min=0)
    masked = masked | (x < -(8 * top).clamp(min=LARGE))
    keys = (~masked).sum(-1)
    counted = (keys > 1) & (p.sum(-1) > 0.5)
    free = ~masked & counted[..., None]
    entropy = -(p * p.clamp(min=1e-300).log()).sum(-1) / keys.clamp(min=2).double().log()
    entropy = entropy.where(counted, 0.0 * entropy.nan_to_num())
    zeros = ((p == 0) & free).sum(-1)
    dead = masked.all(-1)
    return {
        "rows": counted.sum(),
        "keys": free.sum(),
        "zeros": zeros.sum(),
        "sharp_rows": ((2 * zeros > keys) & (entropy < 0.1) & counted).sum(),
        "one_hot": ((p.amax(-1) == 1) & counted).sum(),
        "unattended": dead.sum(),
        "head_rows": counted.sum(-1),
        "head_entropy": entropy.sum(-1),
    }


def _thin(x: Any) -> Any:
    """(…, heads, queries, keys) → heads × rows × keys, thinned to a fixed number of rows; fewer dimensions are one head."""
    while x.dim() < 3:
        x = x.unsqueeze(0)
    most = max(x.shape[-3], min(ROWS, ELEMENTS // x.shape[-1]))
    for dims in ([x.dim() - 2], list(range(x.dim() - 3))):
        factor = x[..., 0].numel() / most
        if factor > 1 and dims:
            step = ceil(factor ** (1 / len(dims)))
            for dim in dims:
                x = x.movedim(dim, 0)[min(step, x.shape[dim]) // 2 :: step].movedim(0, dim)
    return x.movedim(-3, 0).reshape(x.shape[-3], -1, x.shape[-1])
