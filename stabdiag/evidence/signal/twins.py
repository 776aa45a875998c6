"""Which units of a weight agree in what they hold and in the gradient they get, read off eight pseudo-random projections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TOLERANCE = 1e-3
ROWS = 4096


def measure(weight: Any, gradient: Any) -> Mapping[str, Any] | None:
    """What is known about the units of a weight, None where there are none to compare.

    `units` that can be judged, how many of them have `twins`, how many would if the length and sign of gradients did not count
    (`parallel`), how many have `zero` weights, whether any is `reached` by a
    gradient, how many numbers a unit is made of (`width`), how many dimensions of one lie before the units (`leading`), and
    projections of the whole `weight` and of its `gradient`.
    """
    if weight.dim() < 2 or gradient is None or not weight.is_floating_point() or not weight.numel():
        return None
    leading = 0
    while weight.dim() > 2 and weight.shape[0] == 1:
        weight, gradient, leading = weight[0], gradient[0], leading + 1
    if weight.shape[0] < 2:
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
    whole = _directions(w, units)
    zero = (w.abs().amax(1) == 0).sum()
    return {
        "units": units,
        "twins": _twins(w, g),
        "parallel": _twins(w, g / g.gather(1, g.abs().argmax(1, keepdim=True))) if bool(reached.any()) else 0,
        "zero": int(zero),
        "reached": bool(reached.any()),
        "width": weight[0].numel(),
        "leading": leading,
        "weight": (w * whole).sum(0).tolist(),
        "gradient": (g * whole).sum(0).tolist(),
    }


def _twins(w: Any, g: Any) -> int:
    """How many rows agree with another one in both."""
    features = w.new_zeros(w.shape[0], 16)
    features[:, :8], features[:, 8:] = _scaled(w), _scaled(g)
    key = features @ _directions(features, 16)[:, 0]
    rows = features[key.argsort()]
    apart = (rows[1:] - rows[:-1]).abs().amax(1)
    same = apart <= TOLERANCE * rows.abs().amax(1)[1:]
    twin = same.new_zeros(w.shape[0])
    twin[1:] |= same
    twin[:-1] |= same
    return int(twin.sum())


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


def copies(facts: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether two weights of one shape are the same throughout, and so are their gradients. Zeros are no copies."""
    for name in ("weight", "gradient"):
        a, b = facts[name], others[name]
        size = max(map(abs, a))
        if not size or any(abs(x - y) > TOLERANCE * size for x, y in zip(a, b, strict=True)):
            return False
    return True
