"""Bandwidth of measuring on a GPU against a device copy: `python benchmarks/cuda_kernel.py`; the goal is at least 70 %.

Measuring reads every element once; a copy also writes it. Both are started ten times in a row over rotating buffers that
together exceed the cache, timed by events, median of the rounds: for large tensors that hides what the host does, for small
ones it shows it. `many` is a thousand tensors of 10,000 elements each, started together.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from stabdiag.recording.stats import tensor as stats

ROUNDS = 9
REPEATS = 10


def milliseconds(work: Callable[[Tensor], object], buffers: list[Tensor]) -> float:
    found = []
    for i in range(ROUNDS + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for k in range(REPEATS):
            work(buffers[(i + k) % len(buffers)])
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / REPEATS)
    return median(found[3:])


def measured(tensor: Tensor) -> None:
    stats.measure(tensor)
    stats.launch()


def main() -> None:
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}\n")
    print("| dtype | data | elements | measure ms | GB/s | copy GB/s | share |\n|---|---|---|---|---|---|---|")
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for name, zeros in (("dense", 0.0), ("half zero", 0.5), ("all zero", 1.0)):
            for count in (10**6, 10**7, 10**8, 10**9):
                size = count * dtype.itemsize
                buffers = [
                    torch.randn(count, device="cuda", dtype=dtype).masked_fill_(torch.rand(count, device="cuda") < zeros, 0.0)
                    for _ in range(max(1, min(8, 2 * 10**9 // size)))
                ]
                target = torch.empty_like(buffers[0])
                copy = 2 * size / milliseconds(target.copy_, buffers) / 1e6
                took = milliseconds(measured, buffers)
                rate = size / took / 1e6
                print(f"| {str(dtype)[6:]} | {name} | {count:.0e} | {took:.3f} | {rate:.0f} | {copy:.0f} | {rate / copy:.0%} |")
    many = [torch.randn(10_000, device="cuda") for _ in range(1000)]

    def all_of_them(_: Tensor) -> None:
        for tensor in many:
            stats.measure(tensor)
        stats.launch()

    print(f"\nmany: {milliseconds(all_of_them, many):.2f} ms for all of them")


if __name__ == "__main__":
    main()
