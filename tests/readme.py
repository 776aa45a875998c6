"""The generated blocks of the README. `python -m tests.readme` writes them anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from stabdiag.rule import all_rules

README = Path(__file__).parents[1] / "README.md"


def rule_table() -> str:
    """All rules, from their files."""
    rows = ["| code | name | severities | what |", "| --- | --- | --- | --- |"]
    rows += [f"| {r.code} | {r.name} | {', '.join(r.severities)} | {r.summary} |" for r in all_rules().values()]
    return "\n".join(rows)


def output(arguments: str) -> str:
    """What a command prints on stdout, as a fenced block."""
    environment = dict(os.environ, COLUMNS="100", NO_COLOR="1")
    command = [sys.executable, "-m", "stabdiag", *arguments.split()]
    text = subprocess.run(command, capture_output=True, text=True, cwd=README.parent, env=environment, check=False).stdout
    return f"```\n$ stabdiag {arguments}\n{text.rstrip()}\n```"


def generated(text: str) -> str:
    """The README with every generated block as it must be."""
    text = re.sub(r"(<!-- rules -->\n).*?(<!-- /rules -->)", lambda m: f"{m[1]}{rule_table()}\n{m[2]}", text, flags=re.S)
    return re.sub(
        r"(<!-- output: (.*?) -->\n).*?(<!-- /output -->)", lambda m: f"{m[1]}{output(m[2])}\n{m[3]}", text, flags=re.S
    )


if __name__ == "__main__":
    README.write_text(generated(README.read_text(encoding="utf-8")), encoding="utf-8")
