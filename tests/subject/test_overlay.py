"""A fix on trial is seen by imports while it is tried, and by nothing afterwards."""

from __future__ import annotations

import importlib
import linecache
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from stabdiag.subject.overlay import overlay, source_bytes


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "overlaid_net.py"
    path.write_text("width = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, path.stem, raising=False)
    return path


def test_imports_see_the_edited_text_and_only_while_it_is_tried(file: Path) -> None:
    own = SourceFileLoader.get_code
    before = importlib.import_module(file.stem)
    with overlay({str(file): "width = 2\n"}):
        assert importlib.import_module(file.stem).width == 2
        assert source_bytes(file) == b"width = 2\n"
        assert linecache.getline(str(file), 1) == "width = 2\n"
    assert sys.modules[file.stem] is before and before.width == 1
    assert source_bytes(file) == b"width = 1\n"
    assert linecache.getline(str(file), 1) == "width = 1\n"
    assert SourceFileLoader.get_code is own


def test_what_was_not_imported_before_is_not_afterwards(file: Path) -> None:
    with pytest.raises(ZeroDivisionError), overlay({str(file): "width = 1 / 0\n"}):
        importlib.import_module(file.stem)
    assert file.stem not in sys.modules
    with overlay({str(file): "width = 2\n"}):
        importlib.import_module(file.stem)
    assert importlib.import_module(file.stem).width == 1
