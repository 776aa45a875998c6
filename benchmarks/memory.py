"""Peak memory of a recorded step against the bare step: `python benchmarks/memory.py [MODEL …]` (Linux).

Each runs in a process of its own, after one warm-up step; what is compared is the highest resident memory during the step
above what the process held before the model was built.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import contenders
import torch
import workloads


def resident(field: str) -> float:
    """`VmRSS` (now) or `VmHWM` (highest) in MB."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def peak(model: str, contender: str) -> float:
    """MB at most during one step, beyond what imports take."""
    small = {"bare": contenders.bare, **contenders.ALL}[contender](workloads.chain(2))
    assert small is not None
    with small() as step:
        step()
    before = resident("VmRSS")
    torch.manual_seed(0)
    made = {"bare": contenders.bare, **contenders.ALL}[contender](workloads.ALL[model]())
    assert made is not None
    with made() as step:
        step()
        Path("/proc/self/clear_refs").write_text("5")  # the highest is counted from here
        step()
    return resident("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=list(workloads.ON_CPU), help=", ".join(workloads.ON_CPU))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(peak(options.models[0], options.one))
        return
    print("| model | bare MB | recorded MB | ratio |\n|---|---|---|---|")
    for model in options.models:
        found = {}
        for contender in ("bare", "stabdiag"):
            command = [sys.executable, __file__, model, "--one", contender]
            found[contender] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        bare, ours = found["bare"], found["stabdiag"]
        print(f"| {model} | {bare:.0f} | {ours:.0f} | {ours / bare:.2f} |", flush=True)


if __name__ == "__main__":
    main()
