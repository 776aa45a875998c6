"""The CUDA kernels behind `stabdiag.probe.stats`: launched on the tensor's stream, read when the Stats are resolved.

Written against `stats_reference.py`; bit patterns as in `stats_kernels.py`, except that 16-bit floats are widened to
float32 on loading (exact) and that negative patterns are flipped, so that one signed order holds for all.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from stabdiag.trace import Stats

BLOCK = 4096
"""Elements a program takes at a time."""

PROGRAMS = 1024
"""At most this many share a tensor: enough to fill a device, and few enough for their last atomic operations."""

FACTS = tl.constexpr(8)
"""int64 words before the histogram: nan, posinf, neginf, zeros, top, bottom, smallest, finite ones of the sample."""


@triton.jit
def _widened(x):
    """16-bit floats as float32, subnormal ones too; others as they are."""
    if x.dtype == tl.bfloat16:
        wide = (x.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    elif x.dtype == tl.float16:
        wide = x.to(tl.float32)
    else:
        wide = x
    return wide


@triton.jit
def _patterns(x, mask, word: tl.constexpr):
    """Bit patterns that order as the floats do, and their magnitude bits."""
    if word == tl.int32:
        bits = x.to(tl.int32, bitcast=True)
        magnitude = bits & 0x7FFFFFFF
    else:
        bits = x.to(tl.int64, bitcast=True)
        magnitude = bits & 0x7FFFFFFFFFFFFFFF
    key = tl.where(bits >= 0, magnitude, -1 - magnitude)
    return tl.where(mask, key, 0).to(tl.int64), tl.where(mask, magnitude, 0).to(tl.int64)


@triton.jit
def _exact(data, out, count, programs, infinity, word: tl.constexpr, block: tl.constexpr):
    """Counts and extremes of all elements."""
    nan = tl.zeros([block], tl.int64)
    posinf = tl.zeros([block], tl.int64)
    neginf = tl.zeros([block], tl.int64)
    zeros = tl.zeros([block], tl.int64)
    top = tl.full([block], -0x7FFFFFFFFFFFFFFF, tl.int64)
    bottom = tl.full([block], 0x7FFFFFFFFFFFFFFF, tl.int64)
    start = tl.program_id(0).to(tl.int64) * block
    while start < count:
        offsets = start + tl.arange(0, block)
        mask = offsets < count
        key, magnitude = _patterns(_widened(tl.load(data + offsets, mask=mask, other=0.0)), mask, word)
        finite = mask & (magnitude < infinity)
        nan += (magnitude > infinity).to(tl.int64)
        posinf += (key == infinity).to(tl.int64)
        neginf += (key == -1 - infinity).to(tl.int64)
        zeros += (mask & (magnitude == 0)).to(tl.int64)
        top = tl.maximum(top, tl.where(finite, key, -0x7FFFFFFFFFFFFFFF))
        bottom = tl.minimum(bottom, tl.where(finite, key, 0x7FFFFFFFFFFFFFFF))
        start += programs * block
    tl.atomic_add(out, tl.sum(nan, 0))
    tl.atomic_add(out + 1, tl.sum(posinf, 0))
    tl.atomic_add(out + 2, tl.sum(neginf, 0))
    tl.atomic_add(out + 3, tl.sum(zeros, 0))
    tl.atomic_max(out + 4, tl.max(top, 0))
    tl.atomic_min(out + 5, tl.min(bottom, 0))


@triton.jit
def _distribution(data, out, sums, count, stride, infinity, mantissa: tl.constexpr, word: tl.constexpr, block: tl.constexpr):
    """Moments, smallest magnitude and exponents of one block of the sample."""
    offsets = (tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)) * stride
    mask = offsets < count
    x = _widened(tl.load(data + offsets, mask=mask, other=0.0))
    _, magnitude = _patterns(x, mask, word)
    finite = mask & (magnitude < infinity)
    nonzero = finite & (magnitude != 0)
    wide = tl.where(finite, x.to(tl.float64), 0.0)
    tl.store(sums + 2 * tl.program_id(0), tl.sum(wide, 0))
    tl.store(sums + 2 * tl.program_id(0) + 1, tl.sum(wide * wide, 0))
    tl.atomic_min(out + 6, tl.min(tl.where(nonzero, magnitude, 0x7FFFFFFFFFFFFFFF), 0))
    tl.atomic_add(out + 7, tl.sum(finite.to(tl.int64), 0))
    # bin = exponent + bias + mantissa; the highest bit of a subnormal's integer is its exponent
    subnormal = (magnitude.to(tl.float64).to(tl.int64, bitcast=True) >> 52) - 1022
    field = magnitude >> mantissa
    tl.atomic_add(out + FACTS + tl.where(field == 0, subnormal, field + mantissa), 1, mask=nonzero)


def measure_flat(flat: Tensor, stride: int) -> Callable[[], Stats]:
    """Start what `stats_reference.measure_flat` does on a contiguous CUDA tensor; call the result to wait for it."""
    word, mantissa, bias = (tl.int64, 52, 1023) if flat.dtype == torch.float64 else (tl.int32, 23, 127)
    infinity = (2 * bias + 1) << mantissa
    count = flat.numel()
    out = _blank(flat.device, mantissa + 2 * bias + 2).clone()
    blocks = triton.cdiv(triton.cdiv(count, stride), 1024)
    sums = torch.empty(blocks, 2, dtype=torch.float64, device=flat.device)
    programs = min(PROGRAMS, triton.cdiv(count, BLOCK))
    with torch.cuda.device(flat.device):
        _exact[(programs,)](flat, out, count, programs, infinity, word=word, block=BLOCK)
        _distribution[(blocks,)](flat, out, sums, count, stride, infinity, mantissa=mantissa, word=word, block=1024)

    def read() -> Stats:
        nan, posinf, neginf, zeros, top, bottom, smallest, sampled, *bins = out.tolist()
        total, total_sq = sums.sum(0).tolist()
        any_finite = count > nan + posinf + neginf
        low = _decoded(bottom, mantissa) if any_finite else float("inf")
        high = _decoded(top, mantissa) if any_finite else float("-inf")
        return Stats(
            count=count,
            nan=nan,
            posinf=posinf,
            neginf=neginf,
            zeros=zeros,
            min=low,
            max=high,
            max_abs=max(-low, high) if any_finite else 0.0,
            min_abs=_decoded(smallest, mantissa) if smallest < infinity else float("inf"),
            sampled=sampled,
            sum=total,
            sum_sq=total_sq,
            histogram={i - mantissa - bias: n for i, n in enumerate(bins) if n},
        )

    return read


@cache
def _blank(device: torch.device, bins: int) -> Tensor:
    """The output before any element was seen."""
    extreme = 2**63 - 1
    return torch.tensor([0, 0, 0, 0, -extreme, extreme, extreme, 0] + [0] * bins, device=device)


def _decoded(key: int, mantissa: int) -> float:
    """The float of an ordered pattern."""
    magnitude = key if key >= 0 else -1 - key
    value: float = (
        struct.unpack("<d", struct.pack("<q", magnitude))[0]
        if mantissa == 52
        else (struct.unpack("<f", struct.pack("<i", magnitude))[0])
    )
    return value if key >= 0 else -value
