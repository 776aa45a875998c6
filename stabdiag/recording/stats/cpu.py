"""The CPU kernels behind `stabdiag.recording.stats.tensor`: one pass over a flat run of floats, on their bit patterns.

Non-negative floats order like their bits read as integers, infinity above the finite numbers and NaN above infinity;
negative ones order backwards, and above all the others when the bits are read as unsigned. So the largest signed
integer is the largest float, the largest unsigned integer the smallest float, and the smallest unsigned integer stands
in where one of the signs is missing. Three integer reductions and a count of zeros are the exact facts of a tensor
without Inf and NaN, for every width, and they vectorise; only a block that holds Inf or NaN is read a second time, from
the cache.

Importing this module loads the compiled kernels from numba's cache, or compiles them where there is none yet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, njit, types  # type: ignore[attr-defined]
from numba.extending import intrinsic

BLOCK = 8192
"""Elements read at a time: they stay in the cache for the second look, and counts over them fit in 16 bits."""

SAMPLE = 8192
"""Scratch is kept for this many elements of a sample with a stride."""

BINS = 2112
"""Exponents of the widest format, float64: 2,048 fields and 52 subnormal ones."""

SCRATCH = 8 * (4 * BINS + SAMPLE)
"""Bytes a kernel works in: histogram exponents, histogram counts, two rows of bins, the sample."""


@intrinsic
def _pointer_intrinsic(typingctx: Any, address: Any, element: Any) -> Any:
    """An integer address as a pointer to a scalar type, so that a call needs no array object."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(element.dtype)(types.uintp, element), codegen  # type: ignore[no-untyped-call]


_pointer: Any = _pointer_intrinsic


def compiled(signature: str, function: Any) -> Any:
    """Compile now, not to hold the GIL; keep the result on disk where a cache directory can be written."""
    try:
        return njit(signature, nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # numba found no place for its cache
        return njit(signature, nogil=True, error_model="numpy")(function)


@njit(error_model="numpy")
def _value(size: Any, mantissa: Any, bias: Any) -> Any:
    """The finite float with these magnitude bits, as float64, by way of normal numbers: a CPU may flush others to 0."""
    hidden = np.int64(1) << mantissa
    if size >= hidden:
        return np.int64((size << (52 - mantissa)) + ((1023 - bias) << 52)).view(np.float64)
    number = np.int64(((size + hidden) << (52 - mantissa)) + ((1023 - bias) << 52)).view(np.float64)
    return number - np.int64((1024 - bias) << 52).view(np.float64)


@njit(error_model="numpy")
def _extremes(block: Any, word: Any, uword: Any, magnitude: Any) -> Any:
    """Largest signed, largest unsigned and smallest unsigned pattern of a block, and its zeros."""
    top, bottom, least, zeros = word(-magnitude - 1), uword(0), uword(2 * magnitude + 1), word(0)
    for i in range(block.size):
        bits = block[i]
        top = max(top, bits)
        bottom = max(bottom, uword(bits))
        least = min(least, uword(bits))
        zeros = word(zeros + word(word(bits & word(magnitude)) == word(0)))
    return top, bottom, least, zeros


@njit(error_model="numpy")
def _finite_extremes(block: Any, word: Any, uword: Any, magnitude: Any, infinity: Any) -> Any:
    """The same patterns over the finite elements of a block, and its NaN, +inf and -inf."""
    lowest, highest = word(-magnitude - 1), uword(2 * magnitude + 1)
    top, bottom, least = lowest, uword(0), highest
    nan, posinf, neginf = word(0), word(0), word(0)
    for i in range(block.size):
        bits = block[i]
        size = word(bits & word(magnitude))
        finite = size < word(infinity)
        nan = word(nan + word(size > word(infinity)))
        posinf = word(posinf + word(bits == word(infinity)))
        neginf = word(neginf + word(bits == word(infinity - magnitude - 1)))
        top = max(top, bits if finite else lowest)
        bottom = max(bottom, uword(bits) if finite else uword(0))
        least = min(least, uword(bits) if finite else highest)
    return top, bottom, least, nan, posinf, neginf


@njit(error_model="numpy", fastmath={"reassoc"})
def _moments(sample: Any, magnitude: Any, infinity: Any, mantissa: Any, bias: Any) -> Any:
    """Sum and sum of squares of the finite elements; the smallest magnitude bits that are not those of 0."""
    total = total_sq = 0.0
    smallest = np.int64(magnitude)
    for i in range(sample.size):
        bits = np.int64(sample[i])
        size = bits & magnitude
        number = _value(size, mantissa, bias) if size < infinity else 0.0
        total += number if bits >= 0 else -number
        total_sq += number * number
        smallest = min(smallest, size if size != 0 else magnitude)
    return total, total_sq, smallest


@njit(error_model="numpy")
def _bin(bits: Any, magnitude: Any, mantissa: Any) -> Any:
    """Where an element is counted: exponent + bias + mantissa, were it normal."""
    return np.uint64(((np.int64(bits) & magnitude) >> mantissa) + mantissa)


@njit(error_model="numpy")
def _histogram(sample: Any, magnitude: Any, infinity: Any, mantissa: Any, bias: Any, rows: Any) -> Any:
    """Write the exponents that occur and their counts to rows 0 and 1; return how many, and the finite elements."""
    last = mantissa + (infinity >> mantissa)  # the bin of what is not finite
    bins, more = rows[2], rows[3]
    bins[: last + 1] = 0
    more[: last + 1] = 0
    half = sample.size // 2
    for i in range(half):  # two rows, so that equal neighbours do not wait for one another
        bins[_bin(sample[i], magnitude, mantissa)] += 1
        more[_bin(sample[half + i], magnitude, mantissa)] += 1
    if sample.size % 2:
        bins[_bin(sample[sample.size - 1], magnitude, mantissa)] += 1
    bins[: last + 1] += more[: last + 1]
    if bins[mantissa]:  # zeros and subnormals share an exponent field: tell them apart
        bins[mantissa] = 0
        for i in range(sample.size):
            size = np.int64(sample[i]) & magnitude
            if 0 < size < (1 << mantissa):
                bins[(np.float64(size).view(np.int64) >> 52) - 1022] += 1
    entries = 0
    for i in range(last):
        if bins[i]:
            rows[0, entries], rows[1, entries] = i - mantissa - bias, bins[i]
            entries += 1
    return entries, sample.size - bins[last]


def _kernel(word: Any, uword: Any, mantissa: int, bias: int) -> Any:
    """The kernel of one binary format: integer types of its width, stored mantissa bits, exponent bias.

    The kernel takes the address of the first element, how many there are, the stride of the sample (every element when
    1; larger ones must give at most SAMPLE) and the address of SCRATCH bytes. It returns nan, posinf, neginf, zeros,
    min, max, min_abs, sampled, sum and sum_sq as in `stabdiag.trace.Stats`, and the number n of histogram entries; they
    are left in the scratch: n exponents from its start, n counts from word BINS.
    """
    width = word(0).nbytes
    magnitude = int(np.iinfo(word).max)
    infinity = magnitude >> mantissa << mantissa

    def measure(address: Any, count: Any, stride: Any, scratch: Any) -> Any:
        """See `_kernel`."""
        rows = carray(_pointer(scratch, np.int64), (4, BINS))
        picked = carray(_pointer(scratch + np.uintp(32 * BINS), word), (SAMPLE,))

        top, bottom, least = np.int64(-magnitude - 1), np.uint64(0), np.uint64(2 * magnitude + 1)
        nan = posinf = neginf = zeros = taken = position = 0
        for start in range(0, count, BLOCK):
            block = carray(_pointer(address + np.uintp(start * width), word), (min(BLOCK, count - start),))
            high, low, near, empty = _extremes(block, word, uword, magnitude)
            zeros += empty
            if high >= infinity or np.uint64(low) >= np.uint64(magnitude + 1 + infinity):
                high, low, near, not_numbers, above, below = _finite_extremes(block, word, uword, magnitude, infinity)
                nan, posinf, neginf = nan + not_numbers, posinf + above, neginf + below
            top, bottom, least = max(top, np.int64(high)), max(bottom, np.uint64(low)), min(least, np.uint64(near))
            if stride > 1:
                while position < block.size:
                    picked[np.uint64(taken)] = block[np.uint64(position)]
                    taken += 1
                    position += stride
                position -= block.size

        sample = picked[:taken] if stride > 1 else carray(_pointer(address, word), (count,))
        total, total_sq, smallest = _moments(sample, magnitude, infinity, mantissa, bias)
        entries, sampled = _histogram(sample, magnitude, infinity, mantissa, bias, rows)

        minimum, maximum = np.inf, -np.inf
        if count > nan + posinf + neginf:
            negative, positive = np.int64(bottom & np.uint64(magnitude)), np.int64(least & np.uint64(magnitude))
            minimum = -_value(negative, mantissa, bias) if bottom > np.uint64(magnitude) else _value(positive, mantissa, bias)
            maximum = _value(top, mantissa, bias) if top >= 0 else -_value(positive, mantissa, bias)
        min_abs = _value(smallest, mantissa, bias) if smallest < infinity else np.inf
        return nan, posinf, neginf, zeros, minimum, maximum, min_abs, sampled, total, total_sq, entries

    signature = (
        "Tuple((int64, int64, int64, int64, float64, float64, float64, int64, float64, float64, int64))"
        "(uintp, int64, int64, uintp)"
    )
    return compiled(signature, measure)


float64 = _kernel(np.int64, np.uint64, 52, 1023)
float32 = _kernel(np.int32, np.uint32, 23, 127)
float16 = _kernel(np.int16, np.uint16, 10, 15)
bfloat16 = _kernel(np.int16, np.uint16, 7, 127)
