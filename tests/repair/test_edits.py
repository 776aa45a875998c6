"""Every source edit as text: what it makes of the code it is for, and that it changes nothing else."""

from __future__ import annotations

import ast

import pytest

from stabdiag.repair.editing.source import Source
from stabdiag.repair.remedy import all_remedies
from stabdiag.trace import Location
from tests.repair import cases
from tests.repair.edits import EDITS

HEADER = "import math\n\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n\n"


def marked(body: str, header: str = HEADER) -> tuple[str, Location]:
    text = header + body
    start, end = text.index("«"), text.index("»") - 1
    text = text.replace("«", "").replace("»", "")
    line = text.count("\n", 0, start) + 1
    first = text.rfind("\n", 0, start) + 1
    return text, Location("model.py", line, len(text[first:start].encode()), len(text[first:end].encode()))


def edited(name: str, text: str, at: Location) -> str | None:
    remedy = all_remedies()[name]
    precisions = ("float16",) if name.startswith("float") else ("float32",)
    return cases.edited(remedy, Source("model.py", text), cases.case(remedy, at, precisions=precisions))


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


def test_a_constant_of_the_file_is_known_by_its_value() -> None:
    text, at = marked("NEVER = -1e9\n\n\ndef f(x, m):\n    return «x.masked_fill(m, NEVER)»\n")
    assert "return x.masked_fill(m, torch.finfo(x.dtype).min)" in (edited("dtype-minimum", text, at) or "")


def test_an_argument_of_the_same_name_is_not_that_constant() -> None:
    text, at = marked("NEVER = -1e9\n\n\ndef f(x, m, NEVER):\n    return «x.masked_fill(m, NEVER)»\n")
    assert edited("dtype-minimum", text, at) is None
