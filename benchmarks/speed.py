"""One training step under each tool against the bare step: `python benchmarks/speed.py [--rounds 15] [MODEL …]`.

Every contender's step is timed between two bare ones, in turn with the others, and its ratio is to the mean of those two;
the table gives minimum, median and maximum of the ratios. Contenders whose library is missing are named as absent. On a
machine that does other work too, `--cpu` (CPU seconds instead of wall time, with OMP_NUM_THREADS=1) is steadier.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from statistics import median

import contenders
import torch
import workloads
from contenders import Contender


def timed(contender: Contender, clock: Callable[[], float]) -> float:
    with contender() as step:
        finish()
        start = clock()
        step()
        finish()
        return clock() - start


def finish() -> None:
    """Wait for what a GPU still has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratios(
    bare: Contender, others: dict[str, Contender], rounds: int, clock: Callable[[], float]
) -> tuple[float, dict[str, list[float]]]:
    """Seconds of the bare step, and the ratios of each of the others to it."""
    found: dict[str, list[float]] = {name: [] for name in others}
    for contender in (bare, *others.values()):
        timed(contender, clock)
        timed(contender, clock)
    times = [timed(bare, clock)]
    for _ in range(rounds):
        for name, contender in others.items():
            spent = timed(contender, clock)
            times.append(timed(bare, clock))
            found[name].append(2 * spent / (times[-2] + times[-1]))
    return median(times), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = workloads.ALL if torch.cuda.is_available() else workloads.ON_CPU
    parser.add_argument("models", nargs="*", metavar="MODEL", default=list(here), help=", ".join(here))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="*", help="contenders by name")
    parser.add_argument("--cpu", action="store_true", help="CPU seconds of the process instead of wall time")
    options = parser.parse_args()
    clock = time.process_time if options.cpu else time.perf_counter
    warnings.filterwarnings("ignore")
    seconds = "CPU" if options.cpu else "wall"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.rounds} rounds, {seconds} time\n")
    for name in options.models:
        torch.manual_seed(0)
        work = workloads.ALL[name]()
        made = {n: make(work) for n, make in contenders.ALL.items() if not options.only or n in options.only}
        present = {n: contender for n, contender in made.items() if contender is not None}
        bare, found = ratios(contenders.bare(work), present, options.rounds, clock)
        print(f"| {work.name}: bare step {bare * 1e3:.0f} ms | min | median | max |\n|---|---|---|---|")
        for contender in made:
            r = found.get(contender)
            print(f"| {contender} | {f'{min(r):.2f} | {median(r):.2f} | {max(r):.2f}' if r else 'not installed | |'} |")
        print(flush=True)


if __name__ == "__main__":
    main()
