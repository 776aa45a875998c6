"""Tensor → Stats in one pass over its memory.

Facts that decide (NaN, Inf, zeros, extremes) are exact; a larger tensor gives a fixed sample to sum, sum of squares and
histogram. The tensor is read where it lies: dense in any order of dimensions, it is one run of memory; what is expanded
is read once and counted as often as it is repeated. No torch op runs unless the memory has gaps, and then no dispatch
mode sees it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from math import gcd, prod
from types import ModuleType
from typing import Any, TypeAlias, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stabdiag.recording.stats import reference as stats_reference
from stabdiag.recording.torch_private import undispatched
from stabdiag.trace import Stats, merged

EVERYTHING = 16_384
"""Tensors up to this size give all their elements to the distribution."""

SAMPLE = 8_192
"""Larger ones at most this many, at a fixed stride."""

ALONE = 1 << 20
"""Elements that are worth a thread of their own."""

_UPCAST = {
    getattr(torch, name): torch.float32
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    if hasattr(torch, name)
}
_KERNEL = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
_MEASURED = {torch.complex64, torch.complex128, *_KERNEL, *_UPCAST}

_ADDITIVE = ("count", "nan", "posinf", "neginf", "zeros", "sampled", "sum", "sum_sq")

Kernel: TypeAlias = Callable[[int, int, int, int], tuple[Any, ...]]


@dataclass
class Pending:
    """Stats that a device is still computing: `read` waits for them, `repeats` is how often each element occurs."""

    read: Callable[[], Stats]
    repeats: int = 1

    def resolve(self) -> Stats:
        """Wait for the device and return them."""
        return _repeated(self.read(), self.repeats)


@overload
def resolve(stats: Stats | Pending) -> Stats: ...


@overload
def resolve(stats: None) -> None: ...


def resolve(stats: Stats | Pending | None) -> Stats | None:
    """The finished Stats, None for None."""
    return stats if stats is None or isinstance(stats, Stats) else stats.resolve()


def measure_all(tensors: Iterable[Tensor]) -> list[Stats | None]:
    """The finished Stats of each; waits for a device once."""
    return [resolve(found) for found in [measure(tensor) for tensor in tensors]]


def measure(tensor: Tensor) -> Stats | Pending | None:
    """The distribution of a tensor; Pending on CUDA, where nothing waits for the device.

    None for what has no floating-point memory of its own to read: integers, booleans, empty, meta, sparse and quantised
    tensors, subclasses with a dispatch of their own. A complex tensor counts as its real and imaginary parts.
    """
    dtype = tensor.dtype
    if dtype not in _MEASURED or not _readable(tensor):
        return None
    if dtype in _KERNEL and not tensor.is_neg():
        repeats = 1 if tensor.is_contiguous() else _repeats(tensor.shape, tensor.stride())
        if repeats and (found := _measure_memory(tensor, tensor.numel() // repeats, repeats)) is not None:
            return found
    with undispatched(), torch.no_grad():
        flat, repeats = _flat(tensor)
        flat = flat.to(_UPCAST.get(flat.dtype, flat.dtype))
        found = _measure_memory(flat, flat.numel(), repeats)
        return found or _repeated(stats_reference.measure_flat(flat.view(-1), _stride(flat.numel())), repeats)


def launch(before_writing: Iterable[Tensor] | None = None) -> None:
    """Start on CUDA what waits for company: all, or what lies in the memory of tensors that are about to be overwritten."""
    if _cuda.cache_info().currsize and (cuda := _cuda()) is not None:
        cuda.launch(before_writing)


def sample(tensor: Tensor, size: int = 2048) -> NDArray[np.float64] | None:
    """At most `size` elements in the order of `sample_positions(numel, size)`; None where `measure` gives None.

    The positions count in logical order, so that tensors of one shape give the same elements whatever their dtype and
    memory layout, and two precisions can be compared op by op without either being kept. Waits for CUDA.
    """
    if tensor.dtype not in _MEASURED or not _readable(tensor):
        return None
    with undispatched(), torch.no_grad():
        real = _real(tensor.detach())
        extent = 1 + sum((n - 1) * step for n, step in zip(real.shape, real.stride(), strict=True))
        memory = real.as_strided((extent,), (1,))
        offsets = _offsets(tuple(real.shape), real.stride(), size).to(memory.device)
        if real.dtype in _UPCAST:
            memory = memory.to(_UPCAST[real.dtype])
        return memory[offsets].to("cpu", torch.float64).numpy()


@lru_cache(maxsize=256)
def sample_positions(count: int, size: int = 2048) -> NDArray[np.int64]:
    """Which elements of `count`, in logical order, make the sample; ascending.

    A Weyl sequence: multiples of a step close to the golden section of `count` and coprime to it. They spread evenly
    over the whole, and over every dimension, since the step is coprime to each dimension's size too.
    """
    if count <= size:
        return np.arange(count)
    step = round(count * 0.6180339887498949)
    while gcd(step, count) != 1:
        step += 1
    return np.sort(np.arange(size) * step % count)


def warm_up() -> None:
    """Load the kernels in the background, while the model is being built."""
    threading.Thread(target=_kernels, name="stabdiag-kernels", daemon=True).start()


@cache
def _kernels() -> dict[torch.dtype, Kernel]:
    """The compiled kernels by dtype; none where numba is missing or broken, so that the reference is used."""
    try:
        from stabdiag.recording.stats import cpu as kernels
    except Exception:
        return {}
    return {
        torch.float64: kernels.float64,
        torch.float32: kernels.float32,
        torch.float16: kernels.float16,
        torch.bfloat16: kernels.bfloat16,
    }


@cache
def _cuda() -> ModuleType | None:
    """What measures on CUDA; None without Triton, where the reference is used (it waits for the device)."""
    if not torch.cuda.is_available():
        return None
    try:
        from stabdiag.recording.stats import cuda as stats_cuda
    except Exception:
        return None
    return stats_cuda


class _Scratch(threading.local):
    """Memory for one thread's kernels. `address` is what they are given."""

    def __init__(self) -> None:
        from stabdiag.recording.stats.cpu import BINS, SCRATCH

        words = np.zeros(SCRATCH // 8, dtype=np.int64)
        self.address = words.ctypes.data
        self.exponents, self.counts = words[:BINS], words[BINS : 2 * BINS]


@cache
def _scratch() -> _Scratch:
    return _Scratch()


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="stabdiag-stats")


def _run(kernel: Kernel, address: int, count: int, width: int) -> Stats:
    """Measure `count` elements of `width` bytes from `address` on, a chunk per thread where there are very many."""
    stride = _stride(count)
    threads = min(torch.get_num_threads(), count // ALONE)
    if threads <= 1:
        return _run_chunk(kernel, address, count, stride)
    chunk = -(-count // threads // stride) * stride  # a multiple, so that the sample is the same for any number of threads
    starts = range(0, count, chunk)
    parts = _threads(threads - 1).map(
        lambda start: _run_chunk(kernel, address + start * width, min(chunk, count - start), stride), starts[1:]
    )
    total = merged([_run_chunk(kernel, address, chunk, stride), *parts])
    assert total is not None
    return total


def _run_chunk(kernel: Kernel, address: int, count: int, stride: int) -> Stats:
    scratch = _scratch()
    nan, posinf, neginf, zeros, low, high, min_abs, sampled, total, total_sq, n = kernel(
        address, count, stride, scratch.address
    )
    return Stats(
        count,
        nan,
        posinf,
        neginf,
        zeros,
        low,
        high,
        max(-low, high) if low <= high else 0.0,
        min_abs,
        sampled,
        total,
        total_sq,
        dict(zip(scratch.exponents[:n].tolist(), scratch.counts[:n].tolist(), strict=True)),
    )


def _measure_memory(tensor: Tensor, count: int, repeats: int) -> Stats | Pending | None:
    """Measure `count` elements from where the tensor's memory begins, each of which occurs `repeats` times; None without a
    kernel for its device."""
    if tensor.is_cpu:
        if (kernel := _kernels().get(tensor.dtype)) is not None:
            return _repeated(_run(kernel, tensor.data_ptr(), count, tensor.element_size()), repeats)
    elif tensor.is_cuda and (cuda := _cuda()) is not None:
        return Pending(cuda.measure_memory(tensor, count, _stride(count)), repeats)
    return None


@lru_cache(maxsize=4096)
def _stride(count: int) -> int:
    """Between elements of the sample."""
    return 1 if count <= EVERYTHING else coprime_stride(count, SAMPLE)


def coprime_stride(count: int, size: int) -> int:
    """The stride that takes at most `size` of `count` elements; coprime to the count, it visits every index of a dimension."""
    stride = -(-count // size)
    while gcd(stride, count) > 1 and stride > 1:
        stride += 1
    return max(stride, 1)


def has_memory(tensor: Tensor) -> bool:
    """Whether a tensor holds its elements itself: no subclass with a dispatch of its own, which wraps others."""
    kind = type(tensor)
    return kind is Tensor or kind.__torch_dispatch__ is Tensor.__torch_dispatch__


def _readable(tensor: Tensor) -> bool:
    """Whether the elements lie in memory of the tensor's own, as its shape and strides say."""
    return (
        has_memory(tensor)
        and not torch.nn.parameter.is_lazy(tensor)
        and tensor.layout is torch.strided
        and not tensor.is_meta
        and tensor.numel() > 0
        and tensor.data_ptr() != 0
    )


def _repeats(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """How many elements of the tensor share each element of memory; 0 when that memory has gaps or overlaps."""
    repeats = extent = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if stride == 0:
            repeats *= size
        elif size > 1:
            if stride != extent:
                return 0
            extent *= size
    return repeats


def _repeated(stats: Stats, repeats: int) -> Stats:
    """The Stats of every element occurring that many times."""
    if repeats == 1:
        return stats
    counts = {name: getattr(stats, name) * repeats for name in _ADDITIVE}
    histogram = {exponent: count * repeats for exponent, count in stats.histogram.items()}
    return replace(stats, **counts, histogram=histogram)


def _real(tensor: Tensor) -> Tensor:
    """The tensor with pending conjugation and negation done, complex numbers as pairs."""
    tensor = tensor.resolve_conj().resolve_neg()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _flat(tensor: Tensor) -> tuple[Tensor, int]:
    """The elements as a contiguous tensor, and how often each occurs; a copy only when the memory has gaps."""
    tensor = _real(tensor.detach())
    expanded = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride == 0]
    tensor = tensor[tuple(0 if stride == 0 else slice(None) for stride in tensor.stride())]
    if _repeats(tensor.shape, tensor.stride()):
        return tensor.as_strided((tensor.numel(),), (1,)), prod(expanded)
    return tensor.contiguous(), prod(expanded)


@lru_cache(maxsize=256)
def _offsets(shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> Tensor:
    """Where `sample_positions` lie in memory."""
    index = np.unravel_index(sample_positions(prod(shape), size), shape or (1,))
    return torch.from_numpy(sum((i * step for i, step in zip(index, strides, strict=False)), np.zeros(1, np.int64)))
