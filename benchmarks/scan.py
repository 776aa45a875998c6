"""A whole default scan in bare training steps, stage by stage: `python benchmarks/scan.py [MODEL …]`; the target is 12.

Probing and judging in one process, CPU time on one thread, for models whose step takes about a second. The bare step is the
median of five that are taken before and after; what a worker process costs besides is measured by `start.py`.
"""

from __future__ import annotations

import argparse
import time
import warnings
from itertools import pairwise
from statistics import median

import torch
import workloads

from stabdiag.probe.runner import probe
from stabdiag.recording.eager import without_compiler
from stabdiag.scanning.pipeline import report_on
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.subject import Inputs, Subject
from stabdiag.trace import SubjectFacts


def bare_steps(work: workloads.Workload, count: int) -> list[float]:
    found = []
    for _ in range(count):
        start = time.process_time()
        work.step()
        found.append(time.process_time() - start)
    work.model.zero_grad(set_to_none=True)
    return found


def stages(work: workloads.Workload) -> dict[str, float]:
    """CPU seconds of each stage of a scan."""
    facts = SubjectFacts(work.name, work.name, 0, "", "")
    subject = Subject(work.model, lambda batch: Inputs(work.inputs), lambda output, inputs: work.loss(output), facts)
    request = ScanRequest(work.name)
    marks: list[tuple[str, float]] = []
    trace = probe(subject, request, lambda what, share: marks.append((what, time.process_time())))
    report_on(trace, request)
    marks.append(("", time.process_time()))
    spent: dict[str, float] = {}
    for (what, start), (_, end) in pairwise(marks):
        spent["judging" if what == "done" else what] = spent.get(what, 0.0) + end - start
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=list(workloads.ON_CPU))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    without_compiler()  # as in the worker
    for name in options.models:
        torch.manual_seed(0)
        work = workloads.ALL[name]()
        bare_steps(work, 2)
        before = bare_steps(work, 3)
        spent = stages(work)
        bare = median(before + bare_steps(work, 2))
        print(f"{work.name}: bare step {bare:.2f} s, scan {sum(spent.values()) / bare:.1f} bare steps")
        for stage, seconds in spent.items():
            print(f"  {stage:30} {seconds / bare:5.1f}")


if __name__ == "__main__":
    main()
