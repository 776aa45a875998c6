"""Scans of sample models and real architectures: findings, verdicts and cost in bare training steps, as a Markdown table.

    python -m benchmarks.real_models [FILE.py ...]

Without files: everything in sample_models/ and the transformers architectures of tests/real_models.py. The bare step (forward,
loss, backward, AdamW, float32, no recording) and the scan are timed in turn in one run; the cost is the scan's time beyond
that of an empty scan's process start, over the median of five bare steps.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from stabdiag.judging.report import SubjectReport
from stabdiag.scanning.pipeline import scan
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.load import load
from tests.real_models import REAL_MODELS, source_of

SAMPLES = Path(__file__).parents[1] / "sample_models"
EMPTY = "from torch import nn\nmodel = nn.Linear(2, 2)\n"


def bare_step_seconds(path: Path, repeats: int = 5) -> float:
    """Median seconds of one training step."""
    subject = load(str(path))
    optimizer = torch.optim.AdamW(subject.model.parameters(), lr=1e-4)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        inputs = subject.batch(0)
        optimizer.zero_grad()
        subject.loss(subject.model(*inputs.args, **inputs.kwargs), inputs).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:])


def timed_scan(path: Path) -> tuple[SubjectReport, float]:
    """The report and its wall-clock seconds."""
    began = time.perf_counter()
    report = scan(ScanRequest(target=str(path)))
    return report, time.perf_counter() - began


def row(path: Path, start: float) -> str:
    """One line of the table."""
    step = bare_step_seconds(path)
    report, seconds = timed_scan(path)
    findings = (
        " ".join(sorted({f"{f.code}{'' if f.severity == 'error' else f' ({f.severity})'}" for f in report.findings})) or "none"
    )
    verdicts = " | ".join(
        next((p.verdict for p in report.precisions if p.name == n), "") for n in ("float32", "float16", "bfloat16")
    )
    cost = f"{max(0.0, seconds - start) / step:.0f}×"
    said = report.error.message if report.error else findings
    return f"| {path.stem} | {said} | {verdicts} | {1e3 * step:.1f} | {seconds:.1f} | {cost} |"


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "empty.py")
        empty.write_text(EMPTY)
        start = median(timed_scan(empty)[1] for _ in range(3))
        print(f"process start and empty scan: {start:.1f} s\n")
        print("| model | findings | float32 | float16 | bfloat16 | bare step, ms | scan, s | beyond start, in bare steps |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        if len(sys.argv) > 1:
            paths = [Path(p) for p in sys.argv[1:]]
        else:
            for name in REAL_MODELS:
                Path(folder, f"{name}.py").write_text(source_of(name))
            paths = [*sorted(SAMPLES.glob("*/*.py")), *(Path(folder, f"{name}.py") for name in REAL_MODELS)]
        for path in paths:
            print(row(path, start), flush=True)


if __name__ == "__main__":
    main()
