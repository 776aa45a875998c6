"""Nothing of ours runs the special methods of someone's module: they may raise, lie or be slow."""

from pathlib import Path

import pytest
import torch
from torch import nn

import stabdiag
from stabdiag.scanning.pipeline import scan_here, scan_model
from stabdiag.settings.request import ScanRequest

OURS = str(Path(stabdiag.__file__).parent)

TOUCHY = '''
import sys
import torch
from torch import nn

OURS = {ours!r}


def touchy(kind):
    """A class whose every special method raises when it is called from stabdiag, and its hash also before it is built."""

    def raising(name):
        own = getattr(kind, name, None)

        def method(self, *args):
            if sys._getframe(1).f_code.co_filename.startswith(OURS):
                raise RuntimeError(f"stabdiag called {{name}}")
            if name == "__hash__" and "ready" not in self.__dict__:
                raise AttributeError("not built yet")
            return own(self, *args)

        return method

    names = ["__hash__", "__eq__", "__ne__", "__repr__", "__str__", "__bool__", "__len__", "__getattr__", "__iter__",
             "__contains__", "__getitem__", "__call__", "__format__", "__lt__", "__dir__"]
    return type(kind)(kind.__name__, (kind,), {{name: raising(name) for name in names if name != "__call__"}})


class Linear(nn.Linear):
    def __init__(self, *args):
        super().__init__(*args)
        self.ready = True


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = touchy(Linear)(6, 12), touchy(Linear)(12, 3)
        self.ready = True

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


Net = touchy(Net)
'''

SCRIPTED = """
import torch
from torch import nn


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 12)

    def forward(self, x):
        return torch.relu(self.fc(x))


class Old(torch.jit.ScriptModule):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(12, 3)

    @torch.jit.script_method
    def forward(self, x):
        return self.fc(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.part, self.old = torch.jit.script(Part()), Old()

    def forward(self, x):
        return self.old(self.part(x))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def file(text):
        Path("touchy.py").write_text(text)
        return ScanRequest("touchy.py:Net", precisions=["float32", "float16"])

    return file


def test_special_methods_of_a_file_are_not_called(here):
    report = scan_here(here(TOUCHY.format(ours=OURS)))
    assert report.error is None and report.subject.parameters == 6 * 12 + 12 + 12 * 3 + 3
    assert {"first", "second"} <= set(report.modules)


def test_special_methods_of_a_live_model_are_not_called():
    space = {"__name__": "touchy"}
    exec(TOUCHY.format(ours=OURS), space)
    assert scan_model(space["Net"](), torch.randn(8, 6)).error is None


def test_scripted_parts_of_an_eager_model_load(here):
    report = scan_here(here(SCRIPTED))
    assert report.error is None and report.subject.name == "Net"


def test_an_attribute_is_read_without_asking_the_author():
    from stabdiag.subject.attributes import attribute

    class Inventive(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def __getattr__(self, name):
            raise RuntimeError("asked")

    model = Inventive()
    assert attribute(model, "config", "none") == "none"
    assert isinstance(attribute(model, "inner"), nn.Linear)
    assert attribute(model, "training") is True
    assert attribute(nn.Module.__new__(nn.Module), "config") is None
