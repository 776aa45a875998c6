"""One measurement of a tensor against one `torch.sum` over it: `python benchmarks/kernels.py [--largest 1e8]`.

Measuring gives everything in `stabdiag.trace.Stats`: exact counts and extremes of all elements, moments and histogram of
all or of a sample. Each cell is the median ratio of interleaved pairs, in CPU time on one thread (two threads that wait for
each other on a busy machine would flatter us); the target is at most 3.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch
from torch import Tensor

from stabdiag.probe.stats import measure

DATA = {
    "dense": lambda n: torch.randn(n),
    "half zero": lambda n: torch.randn(n).relu_(),
    "all zero": torch.zeros,
    "permuted": lambda n: torch.randn(n // 250, 10, 25).permute(2, 0, 1),
    "with -inf": lambda n: torch.randn(n).masked_fill_(torch.arange(n) % 3 == 0, -float("inf")),
}


def ratio(tensor: Tensor, rounds: int = 9) -> tuple[float, float]:
    """Median of measure / sum, and nanoseconds of measuring per element."""
    calls = max(1, int(2e6 / tensor.numel()))
    ratios, spent = [], []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(calls):
            measure(tensor)
        between = time.process_time()
        for _ in range(calls):
            torch.sum(tensor)
        ratios.append((between - start) / (time.process_time() - between))
        spent.append((between - start) / calls)
    return median(ratios[1:]), median(spent[1:]) / tensor.numel() * 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=float, default=1e8, help="elements")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [n for n in (10**5, 10**6, 10**7, 10**8) if n <= options.largest]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; measure / torch.sum (ns per element)\n")
    print("| dtype | data | " + " | ".join(f"1e{len(str(n)) - 1}" for n in sizes) + " |")
    print("|---|---|" + "---|" * len(sizes))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for name, make in DATA.items():
            cells = []
            for n in sizes:
                r, nanoseconds = ratio(make(n).to(dtype))
                cells.append(f"{r:.2f} ({nanoseconds:.3f})")
            print(f"| {str(dtype)[6:]} | {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
