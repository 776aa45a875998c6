"""Error against a reference run: the same op of two runs compared on a fixed sample of its result.

The outputs are compared by what tells samples apart: their error is relative to the spread between samples, since what all
samples have in common (a bias, an offset) teaches and decides nothing.

Samples of the reference are kept (a few thousand values per result), never its tensors; both runs see the same weights, inputs
and random draws, so what differs is the arithmetic. Ops are matched by where they are called, not by position: autocast and
casts insert ops of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stabdiag.recording import stats
from stabdiag.recording.torch_private import undispatched
from stabdiag.trace import Op, Value

Sample = NDArray[np.float64]
_Key = tuple[Any, ...]


WHOLE = 1 << 18
"""Outputs and gradients of so many elements are compared whole, larger ones by a sample of about as many: a norm of it is
within 0.3 % of the whole's, and a copy of everything in float64 would take twice the memory of the model."""


ALIKE = 1e-6
"""Samples whose outputs differ by less, relatively, are the same but for rounding: the model makes no difference."""


class Outputs:
    """The parts of the outputs of a run and, where they are to be compared against, the size that errors are relative to."""

    def __init__(self, tensors: list[Tensor], *, against: bool = False) -> None:
        self.parts = [part(t) for t in tensors]
        sizes = (_spread(t) * p.numel() for t, p in zip(tensors, self.parts, strict=True)) if against else ()
        self.spread = sum(sizes) ** 0.5

    @property
    def relative_spread(self) -> float | None:
        """The spread relative to the outputs themselves, None where they are all zero."""
        norm = sum(float(p.dot(p)) for p in self.parts) ** 0.5
        return self.spread / norm if norm > 0 else None


class Reference:
    """Samples of every measured result of the reference run; its outputs; its parameter gradients as `part` of each."""

    def __init__(self) -> None:
        self.results: dict[_Key, tuple[tuple[int, ...], Sample | None]] = {}
        self.outputs = Outputs([])
        self.gradients: dict[str, Tensor] = {}

    def keeper(self) -> Callable[[Op, Value, Tensor], None]:
        """The `compare` of the tracer that records the reference run."""
        key_of = _occurrences()

        def keep(op: Op, value: Value, tensor: Tensor) -> None:
            self.results[key_of(op)] = (value.shape, _sample(tensor))

        return keep

    def comparer(self, scale: float = 1.0) -> Callable[[Op, Value, Tensor], None]:
        """The `compare` of a tracer that records a run to be compared: sets `value.error`. `scale` is what multiplies the loss
        there, and with it all gradients."""
        key_of = _occurrences()

        def compare(op: Op, value: Value, tensor: Tensor) -> None:
            kept = self.results.get(key_of(op))
            if kept is not None and kept[0] == value.shape:
                compared = relative_error if tensor.dtype.is_floating_point else _share_that_differs
                taken = _sample(tensor)
                value.error = compared(taken, kept[1])
                if op.phase == "backward" and scale != 1.0 and taken is not None and tensor.dtype.is_floating_point:
                    # What carries the gradient is scaled, factors of derivatives are not; the wrong reading is off by it.
                    errors = (value.error, compared(taken / scale, kept[1]))
                    value.error = min((e for e in errors if e is not None), default=None)

        return compare


def part(tensor: Tensor) -> Tensor:
    """The elements that stand for an output or gradient, one-dimensional, in float64: a copy of the tensor or of its sample."""
    flat = (tensor.to_dense() if tensor.is_sparse else tensor).detach().reshape(-1)
    return flat[:: stats.coprime_stride(flat.numel(), WHOLE)].to(torch.float64, copy=True)


def add_to_part(tensor: Tensor, step: Tensor) -> None:
    """Add to the elements that `part` takes, in place."""
    flat = tensor.detach().reshape(-1)
    flat[:: stats.coprime_stride(flat.numel(), WHOLE)] += step.to(flat)
    tensor.copy_(flat.reshape(tensor.shape))


def _sample(tensor: Tensor) -> Sample | None:
    if tensor.dtype.is_floating_point:
        return stats.sample(tensor)
    positions = stats.sample_positions(tensor.numel())
    with undispatched():
        return tensor.detach().flatten()[torch.from_numpy(positions).to(tensor.device)].double().cpu().numpy()


def _share_that_differs(have: Sample | None, reference: Sample | None) -> float | None:
    if have is None or reference is None or have.shape != reference.shape or not have.size:
        return None
    return float((have != reference).mean())


def _occurrences() -> Callable[[Op], _Key]:
    counts: dict[_Key, int] = {}

    def key_of(op: Op) -> _Key:
        at = op.location
        key = (op.phase, op.module, op.call, op.name, op.layer, at and (at.path, at.line, at.column, at.library))
        occurrence = counts.get(key, 0)
        counts[key] = occurrence + 1
        return (*key, occurrence)

    return key_of


def relative_error(have: Sample | None, reference: Sample | None) -> float | None:
    """Relative L2 distance of two samples; infinities that both have (masks) count as equal. None when one sample is missing,
    when only one is finite somewhere, or when the reference is all zero."""
    if have is None or reference is None or have.shape != reference.shape:
        return None
    finite = np.isfinite(reference)
    if not finite.all():
        if not np.array_equal(have[~finite], reference[~finite]):
            return None
        have, reference = have[finite], reference[finite]
    if not np.isfinite(have).all():
        return None
    with np.errstate(over="ignore", under="ignore"):
        scale = float(np.abs(reference).max(initial=0.0))
        if scale == 0.0:
            return None
        return float(np.linalg.norm((have - reference) / scale) / np.linalg.norm(reference / scale))


@dataclass(frozen=True, slots=True)
class Difference:
    """How far tensors lie from those of the reference.

    Attributes:
        error: L2 distance, relative to the reference or to the size given.
        projection: share of the reference's direction that they hold, x·y / y·y: to first order what a step along a gradient
            lowers the loss by, beside what the reference's own lowers it by.
    """

    error: float | None = None
    projection: float | None = None


def difference(have: list[Tensor], reference: list[Tensor], size: float | None = None) -> Difference:
    """The difference over lists of the parts of tensors; its numbers are None where they are undefined."""
    if len(have) != len(reference) or not reference or any(x.shape != y.shape for x, y in zip(have, reference, strict=True)):
        return Difference()
    apart = square = dot = 0.0
    for x, y in zip(have, reference, strict=True):
        square += float(y.dot(y))
        dot += float(x.dot(y))
        x = x - y
        apart += float(x.dot(x))
    scale = square if size is None else size * size
    if not (isfinite(apart) and isfinite(square) and scale > 0):
        return Difference()
    return Difference((apart / scale) ** 0.5, dot / square if square > 0 else None)


def _spread(tensor: Tensor) -> float:
    """Mean square of an output's deviation from its mean over samples, which the first dimension counts; of the output itself
    where there is one sample, or samples are alike."""
    tensor = (tensor.to_dense() if tensor.is_sparse else tensor).detach()
    square = float(tensor.square().mean()) if tensor.numel() else 0.0
    apart = float(tensor.var(dim=0, correction=0).mean()) if tensor.dim() and len(tensor) > 1 and tensor.numel() else 0.0
    return apart if apart > ALIKE**2 * square else square
