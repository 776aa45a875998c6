"""Evidence about the units (channels, features) of a layer: how it is sampled, counted, merged and bounded.

A claim about a unit stands on samples. Positions inside one sample (pixels, tokens) are correlated, so P of them count as
sqrt(P); the samples of a batch, further batches and time steps count in full. What was measured per call adds up over all
calls and batches of a site, so that a recurrent ReLU that is half asleep at each step is not called dead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, sqrt
from typing import Any

from stabdiag.trace import Op, Run

ONE_SIDED_95 = 1.6449  # standard normal quantile
ROWS = 512  # samples and positions of which moments and shares are taken; 512 bound a share to within 4 points


def wilson_lower(successes: float, trials: float, z: float = ONE_SIDED_95) -> float:
    """Lower confidence bound of a proportion (Wilson 1927), one-sided 95 % unless another z is given; 0.0 without trials."""
    if trials <= 0:
        return 0.0
    p = successes / trials
    centre = p + z * z / (2 * trials)
    spread = z * sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return max(0.0, (centre - spread) / (1 + z * z / trials))


def never_seen_upper(trials: float) -> float:
    """Upper 95 % bound of the probability of what was seen in none of the trials: 3/n (Hanley & Lippman-Hand 1983)."""
    return min(1.0, 3.0 / trials) if trials > 0 else 1.0


def tail_upper(mean: float, spread: float) -> float:
    """Upper bound of P(x > 0) for a unimodal x of negative mean: 4/9 · s²/(s²+m²) (one-sided Vysochanskij-Petunin)."""
    if mean >= 0:
        return 1.0
    share = spread * spread / (spread * spread + mean * mean)
    return min(1.0, 4 / 9 * share if mean * mean >= 5 / 3 * spread * spread else 4 / 3 * share - 1 / 3)


def batch_size(run: Run) -> int:
    """How many samples are in one batch: the leading size that most floating-point or integer inputs share, at least 1."""
    sizes = [value.shape[0] for value in run.values if value.kind == "input" and value.shape]
    return max(1, max(sizes, key=sizes.count)) if sizes else 1


def effective_samples(rows: float, batch: int, calls: int = 1) -> float:
    """Rows of units (samples × positions, summed over `calls`) as independent samples: batch · sqrt(rows / batch) per call."""
    per_call = rows / max(1, calls)
    return per_call * calls if per_call <= batch else batch * sqrt(per_call / batch) * calls


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


@dataclass
class Site:
    """All calls of one place in the source in one run, with the facts of one measurement added up.

    Attributes:
        op: the first op there; calls: how many; facts: what was measured, summed.
    """

    op: Op
    calls: int
    facts: dict[str, Any]
    ops: list[Op]

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """What identifies the place in every run of the trace."""
        return self.op.site


def sites(run: Run, *measurements: str) -> dict[tuple[Any, ...], Site]:
    """The sites at which any of the measurements was taken, by `Op.site`, in order of execution."""
    found: dict[tuple[Any, ...], Site] = {}
    for op in run.ops:
        for name in measurements:
            fact = op.facts.get(name)
            if fact is None:
                continue
            site = found.get(op.site)
            if site is None:
                found[op.site] = Site(op, 1, dict(fact), [op])
            elif _same_units(site.facts, fact):
                site.calls += 1
                site.ops.append(op)
                for key, value in fact.items():
                    have = site.facts[key]
                    site.facts[key] = (
                        [a + b for a, b in zip(have, value, strict=True)] if isinstance(value, list) else have + value
                    )
    return found


def _same_units(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() == b.keys() and all(not isinstance(v, list) or len(v) == len(a[k]) for k, v in b.items())


def moments(sums: Sequence[float], squares: Sequence[float], rows: float) -> list[tuple[float, float]]:
    """(mean, standard deviation) of each unit from its sums over `rows` rows."""
    return [
        (total / rows, sqrt(max(0.0, square / rows - (total / rows) ** 2)))
        for total, square in zip(sums, squares, strict=True)
    ]


def relu_facts(inputs: list[Any], output: Any, unit_dim: int | None, attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Per unit of a ReLU: in how many calls it fired (exact, over every sample and position), and moments of its input and
    output over a fixed sample of rows. None where the units are unknown or there are no rows."""
    if unit_dim is None or output.numel() == 0 or not output.is_floating_point():
        return None
    shaped = [t for t in inputs if t.is_floating_point() and t.shape == output.shape]
    others = [t for t in inputs if t.is_floating_point() and t.dim() == 0]
    if not shaped or any(bool(t != 0) for t in others):
        return None
    if len(shaped) == 2:  # maximum(x, zeros) or x * mask: the one that is negative somewhere is x
        shaped.sort(key=lambda t: float(t.min()))
    after = rows_of(output.detach(), unit_dim, ROWS)
    before = rows_of(shaped[0].detach(), unit_dim, ROWS).double()
    fired = (after > 0).any(0)
    if not bool(fired.all()):
        quiet = (~fired).nonzero().flatten()
        few = output.detach().index_select(unit_dim, quiet).movedim(unit_dim, 0).flatten(1)
        fired[quiet] = few.amax(1) > 0
    return {
        "rows": output.numel() / output.shape[unit_dim],
        "sampled": after.shape[0],
        "fired": fired.int(),
        "sum": before.sum(0),
        "sum_sq": before.square().sum(0),
        "activity": after.abs().sum(0),
    }
