"""Cost of recording per op for nets of 100 to 20,000 ops: `python benchmarks/scaling.py`; the target is constant ± 20 %."""

from __future__ import annotations

import argparse
import time
from statistics import median

import contenders
import torch
import workloads
from speed import timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| ops | bare µs per op | recording adds µs per op |\n|---|---|---|")
    for layers in (8, 80, 800, 1600):
        work = workloads.chain(layers)
        bare, ours = contenders.bare(work), contenders.stabdiag(work)
        with ours() as record:
            ops = len(record().ops)
        pairs = [(timed(bare, time.process_time), timed(ours, time.process_time)) for _ in range(options.rounds)]
        step = median(b for b, _ in pairs)
        added = median(o - b for b, o in pairs)
        print(f"| {ops:,} | {step / ops * 1e6:.1f} | {added / ops * 1e6:.1f} |", flush=True)


if __name__ == "__main__":
    main()
