"""Folders and patterns stand for the files in them that have a model."""

from pathlib import Path

import pytest

from stabdiag.errors import UserError
from stabdiag.settings.targets import expanded

MODEL = "from torch import nn\n\n\nclass Net(nn.Module):\n    pass\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {
        "src/b.py": MODEL,
        "src/a.py": "def build_model():\n    return None\n",
        "src/data.py": "x = 1\n",
        "src/broken.py": "class (",
        "src/test_a.py": MODEL,
        "src/.cache/c.py": MODEL,
        "src/env/lib/d.py": MODEL,
        "src/env/pyvenv.cfg": "",
        "src/deep/e.py": MODEL,
    }
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def test_a_folder_stands_for_its_models():
    assert expanded("src") == expanded("src/") == ["src/a.py", "src/b.py", "src/deep/e.py"]


def test_a_pattern_stands_for_what_it_matches():
    assert expanded("src/[ab].py") == ["src/a.py", "src/b.py"] and expanded("src/**/e.py") == ["src/deep/e.py"]


def test_anything_else_stands_for_itself():
    assert expanded("src/a.py:Net") == ["src/a.py:Net"] and expanded("package.module:Net") == ["package.module:Net"]


@pytest.mark.parametrize("target", ["src/env", "src/data*.py"])
def test_without_a_model_it_is_refused(target):
    with pytest.raises(UserError, match="holds no file with a model"):
        expanded(target)


def test_a_scan_of_a_folder_is_one_report(stabdiag, scanned):
    Path("two").mkdir()
    Path("two/net.py").write_text(MODEL)
    Path("two/ok.py").write_text(MODEL)
    code, _, _ = stabdiag("scan", "two")
    assert [request.target for request in scanned.requests] == ["two/net.py", "two/ok.py"] and code == 1
