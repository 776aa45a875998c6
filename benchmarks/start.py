"""What starting costs: `python benchmarks/start.py [--rounds 5]`.

Each command is run between two runs of what it is compared with, in turn with the others, and its ratio is to the mean of those
two: CPU seconds of the process and its children. Bytecode is written first, as installing a package does.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

TINY = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))
"""
TYPER = ["-c", "import typer, rich.console"]
TORCH = ["-c", "import torch"]


def seconds(arguments: list[str], folder: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tiny.py").write_text(TINY, encoding="utf-8")
        tool = ["-m", "stabdiag"]
        seconds([*tool, "scan", "tiny.py", "-o", "tiny.json"], folder)
        commands = {
            "--help": ([*tool, "--help"], TYPER),
            "rule SD201": ([*tool, "rule", "SD201"], TYPER),
            "report tiny.json": ([*tool, "report", "tiny.json"], TYPER),
            "scan tiny.py": ([*tool, "scan", "tiny.py"], TORCH),
        }
        found: dict[str, list[float]] = {command: [] for command in commands}
        for _ in range(rounds):
            for command, (arguments, bare) in commands.items():
                first, spent, last = seconds(bare, folder), seconds(arguments, folder), seconds(bare, folder)
                found[command].append(2 * spent / (first + last))
    print("| stabdiag | compared with | min | median | max |\n|---|---|---|---|---|")
    for command, (_, bare) in commands.items():
        ratios = found[command]
        print(f"| {command} | `{bare[1]}` | {min(ratios):.2f} | {median(ratios):.2f} | {max(ratios):.2f} |")


if __name__ == "__main__":
    main()
