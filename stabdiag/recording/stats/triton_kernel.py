"""The CUDA kernel that measures many tensors in one launch, written against `stats_reference.py`; `stats_cuda` launches it.

Bit patterns as in `stats_kernels.py`, except that 16-bit floats are widened to float32 on loading (exact) and that negative
patterns are flipped, so that one signed order holds for all.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _bits(x, word: tl.constexpr):
    """The pattern of a float; that of a 16-bit float as float32, subnormal ones too."""
    if x.dtype == tl.bfloat16:
        bits = x.to(tl.int16, bitcast=True).to(tl.int32) << 16
    elif x.dtype == tl.float16:
        bits = x.to(tl.float32).to(tl.int32, bitcast=True)
    else:
        bits = x.to(word, bitcast=True)
    return bits


@triton.jit
def _key(bits, word: tl.constexpr):
    """Patterns that order as the floats do: -1 - magnitude for negative ones."""
    sign: tl.constexpr = word.primitive_bitwidth - 1
    return bits ^ ((bits >> sign) & ((1 << sign) - 1))


@triton.jit
def _extremes(
    data,
    first,
    last,
    begin,
    word: tl.constexpr,
    block: tl.constexpr,
    rows: tl.constexpr,
    rounds: tl.constexpr,
    whole: tl.constexpr,
):
    """Highest and lowest key and count of zeros of a program's share; `whole` when all of it lies between first and last."""
    least: tl.constexpr = 1 - (1 << (word.primitive_bitwidth - 1))
    top = tl.full([block], least, word)
    bottom = tl.full([block], -least, word)
    zeros = tl.zeros([block], tl.int32)
    # several rows of a block are asked for at once and folded in registers: memory answers late, and many can wait for it
    lanes = tl.arange(0, rows)[:, None] * block + tl.arange(0, block)[None, :]
    many = rounds
    if not whole:
        many = tl.minimum(tl.cdiv(last - begin, block * rows), rounds).to(tl.int32)
    for i in range(many):
        at = begin + i * (block * rows)
        if whole:
            key = _key(_bits(tl.load(data + at + lanes), word), word)
            high = key
            low = key
        else:
            mask = (at + lanes >= first) & (at + lanes < last)
            key = _key(_bits(tl.load(data + at + lanes, mask=mask, other=1.0), word), word)
            high = tl.where(mask, key, least)
            low = tl.where(mask, key, -least)
        zeros += tl.sum(((key == 0) | (key == -1)).to(tl.int32), 0)
        top = tl.maximum(top, tl.max(high, 0))
        bottom = tl.minimum(bottom, tl.min(low, 0))
    return tl.max(top, 0).to(tl.int64), tl.min(bottom, 0).to(tl.int64), tl.sum(zeros, 0).to(tl.int64)


@triton.jit
def _nonfinite(data, row, first, last, begin, share, infinity, word: tl.constexpr, block: tl.constexpr):
    """Count what is not finite in a program's share; the highest and lowest finite keys."""
    least: tl.constexpr = 1 - (1 << (word.primitive_bitwidth - 1))
    nan = tl.zeros([block], tl.int32)
    posinf = tl.zeros([block], tl.int32)
    neginf = tl.zeros([block], tl.int32)
    top = tl.full([block], least, word)
    bottom = tl.full([block], -least, word)
    for i in range(tl.cdiv(tl.minimum(last - begin, share), block).to(tl.int32)):
        offsets = begin + i * block + tl.arange(0, block)
        mask = (offsets >= first) & (offsets < last)
        key = _key(_bits(tl.load(data + offsets, mask=mask, other=1.0), word), word)
        finite = mask & (key < infinity) & (key > -1 - infinity)
        posinf += (key == infinity).to(tl.int32)
        neginf += (key == -1 - infinity).to(tl.int32)
        nan += ((key > infinity) | (key < -1 - infinity)).to(tl.int32)
        top = tl.maximum(top, tl.where(finite, key, least))
        bottom = tl.minimum(bottom, tl.where(finite, key, -least))
    tl.atomic_add(row, tl.sum(nan, 0).to(tl.int64))
    tl.atomic_add(row + 1, tl.sum(posinf, 0).to(tl.int64))
    tl.atomic_add(row + 2, tl.sum(neginf, 0).to(tl.int64))
    return tl.max(top, 0).to(tl.int64), tl.min(bottom, 0).to(tl.int64)


@triton.jit
def _exact(
    data, row, first, last, begin, infinity, word: tl.constexpr, block: tl.constexpr, rows: tl.constexpr, rounds: tl.constexpr
):
    """Counts and extremes of the program's share, which begins at `begin`."""
    share: tl.constexpr = block * rows * rounds
    if (begin >= first) & (begin + share <= last):
        highest, lowest, zeros = _extremes(data, first, last, begin, word, block, rows, rounds, True)
    else:
        highest, lowest, zeros = _extremes(data, first, last, begin, word, block, 1, rows * rounds, False)
    if (highest >= infinity) | (lowest <= -1 - infinity):
        highest, lowest = _nonfinite(data, row, first, last, begin, share, infinity, word, block)
    tl.atomic_add(row + 3, zeros)
    tl.atomic_max(row + 4, highest)
    tl.atomic_min(row + 5, lowest)


@triton.jit
def _distribution(
    data,
    row,
    sums,
    first,
    last,
    stride,
    part,
    infinity,
    facts: tl.constexpr,
    mantissa: tl.constexpr,
    bins: tl.constexpr,
    word: tl.constexpr,
    block: tl.constexpr,
):
    """Moments, smallest magnitude and exponents of one block of the sample."""
    offsets = first + (part * block + tl.arange(0, block)) * stride
    mask = offsets < last
    x = tl.load(data + offsets, mask=mask, other=0.0)
    bits = _bits(x, word)
    if word == tl.int32:
        magnitude = bits & 0x7FFFFFFF
        wide = bits.to(tl.float32, bitcast=True).to(tl.float64)
    else:
        magnitude = bits & 0x7FFFFFFFFFFFFFFF
        wide = x
    finite = mask & (magnitude < infinity)
    nonzero = finite & (magnitude != 0)
    wide = tl.where(finite, wide, 0.0)
    tl.store(sums, tl.sum(wide, 0))
    tl.store(sums + 1, tl.sum(wide * wide, 0))
    tl.atomic_min(row + 6, tl.min(tl.where(nonzero, magnitude.to(tl.int64), 0x7FFFFFFFFFFFFFFF), 0))
    tl.atomic_add(row + 7, tl.sum(finite.to(tl.int64), 0))
    # bin = exponent + bias + mantissa; the highest bit of a subnormal's integer is its exponent
    subnormal = ((magnitude.to(tl.float64).to(tl.int64, bitcast=True) >> 52) - 1022).to(tl.int32)
    field = (magnitude >> mantissa).to(tl.int32)
    bin = tl.where(field == 0, subnormal, field + mantissa)
    counts = tl.histogram(tl.where(nonzero, bin, bins - 1), bins)
    exponents = tl.arange(0, bins)
    tl.atomic_add(row + facts + exponents, counts.to(tl.int64), mask=(counts > 0) & (exponents < bins - 1))


@triton.jit
def measure(
    tensors,
    shares,
    out,
    sums,
    exact,
    infinity,
    element: tl.constexpr,
    word: tl.constexpr,
    facts: tl.constexpr,
    mantissa: tl.constexpr,
    bins: tl.constexpr,
    block: tl.constexpr,
    rows: tl.constexpr,
    rounds: tl.constexpr,
):
    """`tensors`: aligned address, first and last element from there, stride of the sample. `shares`: which tensor and part."""
    program = tl.program_id(0)
    owner = tl.load(shares + 2 * program)
    part = tl.load(shares + 2 * program + 1)
    data = tl.multiple_of(tl.load(tensors + 4 * owner).to(tl.pointer_type(element)), 16)
    first = tl.load(tensors + 4 * owner + 1)
    last = tl.load(tensors + 4 * owner + 2)
    row = out + owner * (facts + bins)
    if program < exact:
        _exact(data, row, first, last, part * (block * rows * rounds), infinity, word, block, rows, rounds)
    else:
        stride = tl.load(tensors + 4 * owner + 3)
        mine = sums + 2 * (program - exact)
        _distribution(data, row, mine, first, last, stride, part, infinity, facts, mantissa, bins, word, block)
