"""The generated blocks of the README and of the documentation's pages. `python -m tests.readme` writes them anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
PAGES = [README, *sorted(README.parent.glob("docs/*.md")), *sorted(README.parent.glob("docs/*/*.md"))]


def output(arguments: str) -> str:
    """What a command prints on stdout, as a fenced block."""
    environment = dict(os.environ, COLUMNS="100", NO_COLOR="1")
    command = [sys.executable, "-m", "stabdiag", *arguments.split()]
    text = subprocess.run(command, capture_output=True, text=True, cwd=README.parent, env=environment, check=False).stdout
    return f"```\n$ stabdiag {arguments}\n{text.rstrip()}\n```"


def generated(text: str) -> str:
    """A page with every generated block as it must be."""
    return re.sub(
        r"(<!-- output: (.*?) -->\n).*?(<!-- /output -->)", lambda m: f"{m[1]}{output(m[2])}\n{m[3]}", text, flags=re.S
    )


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(generated(page.read_text(encoding="utf-8")), encoding="utf-8")
