"""Runs the command line on a model file as a person would: exit code, the JSON report, what stands on stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import stabdiag

ROOT = str(Path(stabdiag.__file__).parents[1])
MODEL = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.last = nn.Linear(16, 4)

    def forward(self, x):
        h = torch.relu(self.first(x))
        {forward}
        return self.last(h)

    {methods}


def build_model():
    torch.manual_seed(0)
    {build}
    return Net()


def example_inputs():
    return torch.randn(16, 8, generator=torch.Generator().manual_seed(1))

{rest}
"""


@dataclass
class Outcome:
    """What the command line did. `run` is the first element of `runs` in the JSON report, {} without a report."""

    code: int
    run: dict[str, Any]
    stderr: str

    @property
    def error(self) -> str:
        """The message of the error that the report names, "" without one."""
        return (self.run.get("error") or {}).get("message", "")

    def verdict(self, precision: str) -> str:
        """The verdict of a precision, "" when there is none."""
        return next((p["verdict"] for p in self.run.get("precisions", []) if p["name"] == precision), "")


def source(forward: str = "pass", methods: str = "", build: str = "pass", rest: str = "") -> str:
    """A small model file with pieces of someone's code at four places."""
    return MODEL.format(
        forward=textwrap.indent(textwrap.dedent(forward), " " * 8).strip(),
        methods=textwrap.indent(textwrap.dedent(methods), " " * 4).strip(),
        build=textwrap.indent(textwrap.dedent(build), " " * 4).strip(),
        rest=textwrap.dedent(rest),
    )


@pytest.fixture
def scan(tmp_path: Path):
    """`scan(text, *options)`: an Outcome."""

    def run(text: str | bytes, *options: str, name: str = "model.py", limit: float = 120.0, **environment: str) -> Outcome:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        # As the installed script starts: nothing is imported from the working directory.
        start = f"import sys; sys.path.append({ROOT!r}); from stabdiag.__main__ import main; main()"
        command = [sys.executable, "-P", "-c", start, "scan", name, "-f", "json", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=limit, env={**os.environ, **environment})
        try:
            runs = json.loads(done.stdout)["runs"]
        except ValueError:
            runs = []
        return Outcome(done.returncode, runs[0] if runs else {}, done.stderr.decode(errors="replace"))

    return run
