"""Statements written where a model is built."""

from __future__ import annotations

import pytest

from stabdiag.repair.editing.built import insert
from stabdiag.repair.editing.source import Source

LOOP = "for module in model.modules():\n    if isinstance(module, nn.Linear):\n        nn.init.zeros_(module.bias)"
FACTORY = "import torch\n\n\ndef build_model():\n    net = torch.nn.Linear(2, 2)\n    return net\n"
DIRECT = "import torch\n\n\ndef build_model():\n    return torch.nn.Linear(2, 2)\n"
INSTANCE = "import torch\n\nnet = torch.nn.Linear(2, 2)\n"
CLASS = (
    "import torch\nimport torch.nn as nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    "        self.model = nn.Linear(2, 2)\n"
)


@pytest.mark.parametrize(("text", "name"), [(FACTORY, "Linear"), (DIRECT, "Linear"), (INSTANCE, "net"), (CLASS, "Net")])
def test_what_is_built_has_been_through_the_statements(text: str, name: str) -> None:
    edited = insert(Source("model.py", text), name, [LOOP, "model.marked = math.sqrt(2)"])
    assert edited is not None
    space: dict[str, object] = {}
    exec(edited, space)
    model = space["net"] if name == "net" else space["Net" if name == "Net" else "build_model"]()  # type: ignore[operator]
    assert model.marked  # type: ignore[attr-defined]
    assert all(not layer.bias.any() for layer in model.modules() if hasattr(layer, "bias"))  # type: ignore[attr-defined]


def test_an_attribute_called_model_stays() -> None:
    edited = insert(Source("model.py", CLASS), "Net", ["model.model.marked = 1"])
    assert edited is not None and "        self.model.marked = 1" in edited


def test_imports_are_added_once() -> None:
    edited = insert(Source("model.py", CLASS), "Net", [LOOP])
    assert edited is not None and edited.count("import") == 2
