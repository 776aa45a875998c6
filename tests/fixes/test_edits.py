"""Every source edit as text: what it makes of the code it is for, and that it changes nothing else."""

from __future__ import annotations

import ast

import pytest

from stabdiag.finding import Finding, Fix, Severity
from stabdiag.repair.editing.source import Source
from stabdiag.repair.remedy import all_remedies
from stabdiag.trace import Location
from tests.fixes.edits import EDITS

HEADER = "import math\n\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n\n"


def marked(body: str, header: str = HEADER) -> tuple[str, Location]:
    text = header + body
    start, end = text.index("«"), text.index("»") - 1
    text = text.replace("«", "").replace("»", "")
    line = text.count("\n", 0, start) + 1
    first = text.rfind("\n", 0, start) + 1
    return text, Location("model.py", line, len(text[first:start].encode()), len(text[first:end].encode()))


def edited(remedy: str, text: str, at: Location) -> str | None:
    found = all_remedies()[remedy]
    precisions = ["float16"] if remedy.startswith("float") else ["float32"]
    finding = Finding(
        Severity.ERROR, "", code=found.repairs[0], name="", location=at, precisions=precisions, fixes=[Fix(remedy, "")]
    )
    return found.edit(Source("model.py", text), finding)


@pytest.mark.parametrize(("remedy", "before", "after"), EDITS, ids=[f"{e[0]}-{i}" for i, e in enumerate(EDITS)])
def test_an_edit_makes_what_its_author_would_write(remedy: str, before: str, after: str) -> None:
    text, at = marked(before)
    result = edited(remedy, text, at)
    assert result == HEADER + after
    ast.parse(result)


@pytest.mark.parametrize(("remedy", "before", "after"), EDITS, ids=[f"{e[0]}-{i}" for i, e in enumerate(EDITS)])
def test_applied_twice_it_changes_nothing_the_second_time(remedy: str, before: str, after: str) -> None:
    text, at = marked(before)
    once = edited(remedy, text, at)
    assert once is not None
    lines = once.splitlines()
    for line in range(len(HEADER.splitlines()) + 1, len(lines) + 1):
        again = edited(remedy, once, Location("model.py", line, len(lines[line - 1]) - len(lines[line - 1].lstrip())))
        assert again is None, f"line {line}: {again}"
