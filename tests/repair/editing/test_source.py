"""Edits are made in the text: what is not replaced stays byte for byte as it was."""

from __future__ import annotations

import ast
import difflib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stabdiag.repair.editing.source import Source, diff, encoding_of, text_of, with_import, with_torch
from stabdiag.trace import Location
from tests.repair.edits import EDITS
from tests.repair.test_edits import HEADER, edited, marked

COMMENTS = st.lists(
    st.sampled_from(["# π", "x = 1  # ünïcode", "", "class A: pass", "s = '''a\n  b'''", "if True:\n\tz = 2"]), max_size=4
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(EDITS), COMMENTS, COMMENTS, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_what_surrounds_an_edit_survives(
    example: tuple[str, str, str], above: list[str], below: list[str], newline: str, open_end: bool
) -> None:
    remedy, before, _ = example
    header = "\n".join([HEADER.strip("\n"), *above, "", ""])
    text, at = marked(before, header)
    text += "\n" + "\n".join(below) + ("" if open_end else "\n")
    text = text.replace("\n", newline)
    result = edited(remedy, text, at)
    assert result is not None
    ast.parse(result)
    if "\r" in newline:
        assert "\n" not in result.replace("\r\n", "")
    kept = [line for line in difflib.ndiff(text.splitlines(), result.splitlines()) if line[0] == " "]
    changed = len(text.splitlines()) - len(kept)
    assert changed <= len(before.splitlines())
    assert result.startswith(header.replace("\n", newline))


def source(text: str) -> Source:
    return Source("m.py", text)


def at(text: str, line: int, column: int | None = None, end: int | None = None) -> str:
    read = source(text)
    found = read.at(Location("m.py", line, column, end))
    assert found is not None
    return read.code(found)


def test_a_location_marks_the_expression_that_begins_and_ends_there() -> None:
    assert at("y = (a @ b) * c\n", 1, 5, 10) == "a @ b"
    assert at("y = a.exp().sum()\n", 1, 4, 11) == "a.exp()"
    assert at("y = a.exp().sum()\n", 1, 4, 17) == "a.exp().sum()"


def test_columns_count_bytes() -> None:
    assert at("é = 'ß' + f(x)\n", 1, len("é = 'ß' + ".encode()), len("é = 'ß' + f(x)".encode())) == "f(x)"


def test_without_a_column_it_is_the_first_expression_of_the_line() -> None:
    assert at("a = 1\nb = torch.relu(x) + 1\n", 2) in ("b", "torch.relu(x) + 1")


def test_other_files_are_not_marked() -> None:
    assert source("a = 1\n").at(Location("other.py", 1, 0)) is None


def test_overlapping_changes_and_broken_code_are_refused() -> None:
    s = source("y = a + b\n")
    assert s.spliced([(4, 9, "c"), (4, 5, "d")]) is None
    assert s.spliced([(4, 9, "(")]) is None


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_lines_go_in_front_of_and_behind_a_statement(newline: str) -> None:
    s = source(f"def f():{newline}    a = 1{newline}    return a")
    inside = s.tree.body[0].body.body  # type: ignore[union-attr]
    assert s.spliced([s.before(inside[0], ["x = 0"])]) == f"def f():{newline}    x = 0{newline}    a = 1{newline}    return a"
    assert s.spliced([s.behind(inside[1], ["b = 2"])]) == f"def f():{newline}    a = 1{newline}    return a{newline}    b = 2"
    assert s.spliced([s.without(inside[0])]) == f"def f():{newline}    return a"


def test_an_import_goes_behind_the_others_and_only_once() -> None:
    text = '"""Doc."""\nimport os\n\nx = 1\n'
    once = with_import(text, "torch", "import torch")
    assert once == '"""Doc."""\nimport os\nimport torch\n\nx = 1\n'
    assert with_import(once, "torch", "import torch") == once
    assert with_import("x = 1\n", "torch", "import torch") == "import torch\nx = 1\n"
    assert with_import('"""Doc."""\n', "torch", "import torch") == '"""Doc."""\nimport torch\n'


def test_torch_is_imported_where_it_is_read() -> None:
    assert with_torch("from torch import nn\ny = torch.exp(x)\n").startswith("from torch import nn\nimport torch\n")
    assert with_torch("from torch import nn\ny = nn.Linear(1, 1)\n") == "from torch import nn\ny = nn.Linear(1, 1)\n"
    assert with_torch("import torch as th\ny = th.exp(x)\n") == "import torch as th\ny = th.exp(x)\n"


def test_a_file_is_read_in_the_encoding_that_it_declares(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_bytes("# -*- coding: latin-1 -*-\r\nname = 'ü'\r\n".encode("latin-1"))
    assert encoding_of(path) == "iso-8859-1"
    assert text_of(path) == "# -*- coding: latin-1 -*-\r\nname = 'ü'\r\n"
    path.write_bytes(b"\xef\xbb\xbfx = 1\n")
    assert text_of(path) == "x = 1\n"
    assert text_of(path).encode(encoding_of(path)) == path.read_bytes()


def test_a_diff_says_when_a_file_ends_without_a_newline() -> None:
    assert diff("a", "b", "m.py").count("\\ No newline at end of file") == 2
