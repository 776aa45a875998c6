"""What is measured about units while a model runs: functions for `Measurement.measure`, written with tensor methods only."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

ROWS = 512  # samples and positions of which moments and shares are taken; 512 bound a share to within 4 points


def rows_of(tensor: Any, unit_dim: int, most: int) -> Any:
    """A fixed sample of a tensor as rows × units, at most about `most` rows, in float32 or wider.

    Every sample of the leading dimension is kept where it fits; positions are thinned by odd strides, so that a regular
    pattern (a checkerboard of a transposed convolution) is not hit at one phase only.
    """
    rows = tensor.movedim(unit_dim, -1)
    for dims in (range(1, rows.dim() - 1), range(1)):
        factor = rows[..., 0].numel() / most
        if factor <= 1 or not len(dims):
            continue
        step = ceil(factor ** (1 / len(dims)))
        step += 1 - step % 2
        for dim in dims:
            start = min(step, rows.shape[dim]) // 2
            rows = rows.movedim(dim, 0)[start::step].movedim(0, dim)
    rows = rows.reshape(-1, rows.shape[-1])
    return rows if rows.dtype.itemsize >= 4 else rows.float()


def relu_facts(inputs: list[Any], output: Any, unit_dim: int | None, attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Per unit of a ReLU: in how many calls it fired (exact, over every sample and position) and never stopped, and moments of
    its output and of its input above the threshold, over a fixed sample of rows. None where the units are unknown or there are
    no rows."""
    if unit_dim is None or output.numel() == 0 or not output.is_floating_point():
        return None
    shaped = [t for t in inputs if t.is_floating_point() and t.shape == output.shape]
    others = [t for t in inputs if t.is_floating_point() and t.dim() == 0]
    if not shaped or any(bool(t != 0) for t in others):
        return None
    if len(shaped) == 2:  # maximum(x, zeros) or x * mask: the one that is negative somewhere is x
        shaped.sort(key=lambda t: float(t.min()))
    after = rows_of(output.detach(), unit_dim, ROWS)
    before = rows_of(shaped[0].detach(), unit_dim, ROWS).double() - (attributes.get("threshold") or 0.0)
    fired = (after > 0).any(0)
    if not bool(fired.all()):
        quiet = (~fired).nonzero().flatten()
        few = output.detach().index_select(unit_dim, quiet).movedim(unit_dim, 0).flatten(1)
        fired[quiet] = few.amax(1) > 0
    return {
        "rows": output.numel() / output.shape[unit_dim],
        "sampled": after.shape[0],
        "fired": fired.int(),
        "steady": (after > 0).all(0).int(),
        "sum": before.sum(0),
        "sum_sq": before.square().sum(0),
        "activity": after.abs().sum(0),
    }
