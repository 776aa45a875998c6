import sys
import textwrap

import pytest

from stabdiag.subject.load import load


@pytest.fixture(autouse=True)
def interpreter_as_found():
    """Loading a file extends sys.path and sys.modules, as running it would; tests must not see each other's."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if "site-packages" not in file and "stabdiag" not in name and not file.startswith(sys.base_prefix):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    """Write a model file, with the usual imports on top: `write("class Net(nn.Module): ...")`."""

    def write(code, name="model.py", imports="import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(imports + textwrap.dedent(code))
        return path

    return write


@pytest.fixture
def loaded(write):
    """Write a model file and load it."""
    return lambda code, **options: load(str(write(code)), **options)
