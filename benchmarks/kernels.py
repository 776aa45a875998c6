"""One measurement of a tensor against one `torch.sum` over it: `python benchmarks/kernels.py [--largest 1e8]`.

Measuring gives everything in `stabdiag.trace.Stats`: exact counts and extremes of all elements (the first ratio; the target is
at most 3), and moments and histogram of all or of a sample of 8,192 (the second, with them). Medians of interleaved pairs, in
CPU time on one thread: two threads that wait for each other on a busy machine would flatter us.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from unittest.mock import patch

import torch
from torch import Tensor

from stabdiag.recording.stats import tensor as stats
from stabdiag.recording.stats.tensor import measure

DATA = {
    "dense": lambda n: torch.randn(n),
    "half zero": lambda n: torch.randn(n).relu_(),
    "all zero": torch.zeros,
    "permuted": lambda n: torch.randn(n // 250, 10, 25).permute(2, 0, 1),
    "with -inf": lambda n: torch.randn(n).masked_fill_(torch.arange(n) % 3 == 0, -float("inf")),
}


def ratio(tensor: Tensor, rounds: int = 9) -> float:
    """Median of measure / sum."""
    calls = max(1, int(2e6 / tensor.numel()))
    ratios = []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(calls):
            measure(tensor)
        between = time.process_time()
        for _ in range(calls):
            torch.sum(tensor)
        ratios.append((between - start) / (time.process_time() - between))
    return median(ratios[1:])


def exact_facts(tensor: Tensor) -> float:
    """The ratio without the sample."""
    with patch.object(stats, "_stride", lambda count: count):
        return ratio(tensor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=float, default=1e8, help="elements")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [n for n in (10**5, 10**6, 10**7, 10**8) if n <= options.largest]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; exact facts / torch.sum, everything / torch.sum\n")
    print("| dtype | data | " + " | ".join(f"1e{len(str(n)) - 1}" for n in sizes) + " |")
    print("|---|---|" + "---|" * len(sizes))
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for name, make in DATA.items():
            cells = []
            for n in sizes:
                tensor = make(n).to(dtype)
                cells.append(f"{exact_facts(tensor):.2f} / {ratio(tensor):.2f}")
            print(f"| {str(dtype)[6:]} | {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
