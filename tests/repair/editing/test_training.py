"""Training settings written into a file: added, or edited where the file has them; twice is as good as once."""

from __future__ import annotations

from typing import Any

import pytest

from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.training import declare

MODEL = """import torch
from torch import nn


def build_model():
    return nn.Linear(2, 2)


def loss(output):
    return output.square().mean() + 1
"""
OPTIMIZER = """

def make_optimizer(model):
    return torch.optim.SGD(
        model.parameters(),
        lr=1,  # high
    )
"""


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"precisions": ["float32", "bfloat16"]}, 'PRECISIONS = ("float32", "bfloat16")'),
        ({"precisions": ["float32"]}, 'PRECISIONS = ("float32",)'),
        ({"loss_scale": 65536.0}, "return torch.amp.GradScaler(init_scale=2.0**16)"),
        ({"lr": 3e-4}, "return torch.optim.AdamW(model.parameters(), lr=0.0003)"),
        ({"eps": 1e-12}, "return torch.optim.AdamW(model.parameters(), lr=0.001, eps=1e-12)"),
        ({"loss_factor": 1e6}, "return 1e6 * (output.square().mean() + 1)"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_what_a_file_leaves_open_is_added(settings: dict[str, Any], line: str, newline: str) -> None:
    text = declare(Source("model.py", MODEL.replace("\n", newline)), settings)
    assert text is not None and line in text
    assert text.count("\n") == text.count(newline)
    compile(text, "model.py", "exec")
    again = declare(Source("model.py", text), settings)
    assert again in (text, None)


def test_what_a_file_declares_is_edited_in_place() -> None:
    text = declare(Source("model.py", MODEL + OPTIMIZER), {"lr": 0.01, "weight_decay": 0.1})
    assert text == MODEL + OPTIMIZER.replace("lr=1,", "lr=0.01, weight_decay=0.1,")


def test_a_scaler_is_edited_in_place() -> None:
    scaler = "\n\ndef make_scaler():\n    return torch.amp.GradScaler()\n"
    text = declare(Source("model.py", MODEL + scaler), {"loss_scale": 2.0**12})
    assert text is not None and text.endswith("return torch.amp.GradScaler(init_scale=2.0**12)\n")


@pytest.mark.parametrize("settings", [{"clip": 1.0}, {"warm_up": 1000}, {"lr": 0.1, "clip_value": 1.0}])
def test_what_belongs_to_the_training_loop_is_not_written(settings: dict[str, Any]) -> None:
    assert declare(Source("model.py", MODEL), settings) is None


def test_two_optimizers_are_left_to_their_author() -> None:
    two = (
        "\n\ndef make_optimizer(model):\n    one = torch.optim.SGD(model.a.parameters(), 1.0)\n"
        "    return one, torch.optim.Adam(model.b.parameters())\n"
    )
    assert declare(Source("model.py", MODEL + two), {"lr": 0.1}) is None
