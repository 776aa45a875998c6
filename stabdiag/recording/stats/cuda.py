"""What measures on CUDA behind `stabdiag.recording.stats.tensor`: tensors that wait for company, measured in one launch.

To start a kernel costs the host more than most tensors cost the device. So tensors wait, kept alive, until they are worth a
launch, until somebody asks for a result, or until an op is about to overwrite memory (`launch`). Nothing waits for the device
before a result is read, and one read fetches the results of its whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
import triton.language as tl
from torch import Tensor

from stabdiag.recording.stats import triton_kernel as stats_triton
from stabdiag.recording.torch_private import undispatched
from stabdiag.trace import Stats

BLOCK = 1024
"""Elements of a tensor or of a sample that a program takes side by side."""

ROWS = 4
"""Blocks that it asks memory for at once."""

ROUNDS = 8
"""How often: its share is read once, and once more from the cache where something is not finite."""

WAITING = 1 / 64
"""Share of the device's memory that is kept alive at most for company."""

FACTS = 8
"""int64 words before the histogram: nan, posinf, neginf, zeros, top, bottom, smallest, finite ones of the sample."""

_TYPES = {
    torch.float64: (tl.float64, tl.int64, 52, 1023, 4096),
    torch.float32: (tl.float32, tl.int32, 23, 127, 512),
    torch.float16: (tl.float16, tl.int32, 23, 127, 512),
    torch.bfloat16: (tl.bfloat16, tl.int32, 23, 127, 512),
}
"""Element, word of its pattern, and of that pattern the mantissa bits, exponent bias and a power of two above all exponents."""


class Batch:
    """Tensors of one dtype on one device that are measured together.

    Once launched it keeps the results only.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.storages: set[int] = set()
        self.room = _room(device)
        self._kept: list[torch.UntypedStorage] = []
        self._rows: list[tuple[int, int, int, int]] = []
        self._counts: list[int] = []
        self._launched: tuple[Tensor, Any] | None = None
        self._results: list[Stats] | None = None

    def add(self, tensor: Tensor, count: int, stride: int) -> Callable[[], Stats]:
        """Take `count` elements of memory from where the tensor's begins; what is returned waits for their Stats."""
        address, width = tensor.data_ptr(), tensor.element_size()
        first = address % 16 // width
        self._rows.append((address - first * width, first, first + count, stride))
        self._counts.append(count)
        storage = tensor.untyped_storage()
        self._kept.append(storage)  # not the tensor: torch detaches a result that somebody else holds, which is one op more
        self.storages.add(storage.data_ptr())
        self.room -= storage.nbytes()
        return partial(self._result, len(self._counts) - 1)

    def launch(self) -> None:
        """Start the kernel for all of them."""
        _open.pop((self.device, self.dtype), None)
        element, word, mantissa, bias, bins = _TYPES[self.dtype]
        infinity = (2 * bias + 1) << mantissa
        rows = np.array(self._rows, dtype=np.int64)
        _, first, last, stride = rows.T
        exact, parts = _shares(_up(last, BLOCK * ROWS * ROUNDS))
        sampled, sample_parts = _shares(_up(_up(last - first, stride), BLOCK))
        shares = np.stack([np.concatenate([exact, sampled]), np.concatenate([parts, sample_parts])], 1)
        with undispatched(), torch.no_grad(), torch.cuda.device(self.device):
            table = torch.from_numpy(np.concatenate([rows.ravel(), shares.ravel()])).pin_memory()
            table = table.to(self.device, non_blocking=True)
            blank = _blank(self.device, bins)
            answer = torch.empty(len(rows) * len(blank) + 2 * len(sampled), dtype=torch.int64, device=self.device)
            out, sums = answer[: len(rows) * len(blank)], answer[len(rows) * len(blank) :].view(torch.float64)
            out.view(len(rows), -1).copy_(blank)
            stats_triton.measure[(len(shares),)](
                table[: rows.size],
                table[rows.size :],
                out,
                sums,
                len(exact),
                infinity,
                element=element,
                word=word,
                facts=FACTS,
                mantissa=mantissa,
                bins=bins,
                block=BLOCK,
                rows=ROWS,
                rounds=ROUNDS,
            )
        self._launched = answer, np.flatnonzero(sample_parts == 0)
        self._kept.clear()

    def _result(self, index: int) -> Stats:
        if self._results is None:
            if self._launched is None:
                self.launch()
            self._results = self._read()
        return self._results[index]

    def _read(self) -> list[Stats]:
        assert self._launched is not None
        answer, starts = self._launched
        self._launched = None
        _, _, mantissa, bias, bins = _TYPES[self.dtype]
        infinity = (2 * bias + 1) << mantissa
        with undispatched(), torch.no_grad():
            read = answer.cpu().numpy()
        size = len(self._counts) * (FACTS + bins)
        words = read[:size].reshape(-1, FACTS + bins)
        moments = np.add.reduceat(read[size:].view(np.float64).reshape(-1, 2), starts, axis=0).tolist()
        exponents = [(np.flatnonzero(row), row[row != 0].tolist()) for row in words[:, FACTS:]]
        facts = words[:, :FACTS].tolist()
        top, bottom, smallest = (_decoded(words[:, i], mantissa) for i in (4, 5, 6))
        results = []
        for i, (nan, posinf, neginf, zeros, _, _, least, sampled) in enumerate(facts):
            any_finite = self._counts[i] > nan + posinf + neginf
            low, high = (bottom[i], top[i]) if any_finite else (float("inf"), float("-inf"))
            total, total_sq = moments[i]
            found, counts = exponents[i]
            results.append(
                Stats(
                    count=self._counts[i],
                    nan=nan,
                    posinf=posinf,
                    neginf=neginf,
                    zeros=zeros,
                    min=low,
                    max=high,
                    max_abs=max(-low, high) if any_finite else 0.0,
                    min_abs=smallest[i] if least < infinity else float("inf"),
                    sampled=sampled,
                    sum=total,
                    sum_sq=total_sq,
                    histogram=dict(zip((found - mantissa - bias).tolist(), counts, strict=True)),
                )
            )
        return results


_open: dict[tuple[torch.device, torch.dtype], Batch] = {}


def measure_memory(tensor: Tensor, count: int, stride: int) -> Callable[[], Stats]:
    """Do what `stats_reference.measure_flat` does with `count` elements of CUDA memory from where the tensor's begins.

    The result of the call waits for the device.
    """
    key = (tensor.device, tensor.dtype)
    batch = _open.get(key)
    if batch is None:
        batch = _open[key] = Batch(*key)
    read = batch.add(tensor, count, stride)
    if batch.room <= 0:
        batch.launch()
    return read


def launch(before_writing: Iterable[Tensor] | None = None) -> None:
    """Start measuring what waits: all, or where some of it lies in the memory of these tensors."""
    if not _open:
        return
    written = None
    if before_writing is not None:
        written = {t.untyped_storage().data_ptr() for t in before_writing if t.layout is torch.strided and not t.is_meta}
    for batch in list(_open.values()):
        if written is None or not batch.storages.isdisjoint(written):
            batch.launch()


@cache
def _room(device: torch.device) -> int:
    """Bytes that may wait."""
    return int(WAITING * torch.cuda.get_device_properties(device).total_memory)


def _up(count: Any, size: Any) -> Any:
    return -(-count // size)


def _shares(many: Any) -> tuple[Any, Any]:
    """For tensors with so many parts each: the tensor and the part of every program."""
    owner = np.repeat(np.arange(len(many)), many)
    return owner, np.arange(len(owner)) - (np.cumsum(many) - many)[owner]


@cache
def _blank(device: torch.device, bins: int) -> Tensor:
    """The output before any element was seen."""
    extreme = 2**63 - 1
    return torch.tensor([0, 0, 0, 0, -extreme, extreme, extreme, 0] + [0] * bins, device=device)


def _decoded(key: Any, mantissa: int) -> list[float]:
    """The floats of ordered patterns."""
    magnitude = np.where(key >= 0, key, -1 - key)
    value = magnitude.view(np.float64) if mantissa == 52 else magnitude.astype(np.uint32).view(np.float32).astype(np.float64)
    found: list[float] = np.where(key >= 0, value, -value).tolist()
    return found
