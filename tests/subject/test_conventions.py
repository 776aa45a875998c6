"""Constructors without defaults: the file's argparse, then what such arguments usually are; always told as guesses."""

from pathlib import Path

import pytest

from stabdiag.subject.load import load
from stabdiag.subject.subject import SubjectError

NET = """
import argparse
from torch import nn


class Block(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x):
        return self.conv(x).relu()


class Net(nn.Module):
    def __init__(self, in_channels, num_classes, {more}width=8):
        super().__init__()
        self.block, self.head = Block(in_channels, width), nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.block(x).mean((2, 3)))
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def net(more="", tail=""):
    Path("net.py").write_text(NET.replace("{more}", more) + tail)
    return load("net.py")


def test_usual_values_are_guessed_and_said():
    subject = net()
    assert subject.facts.name == "Net" and subject.batch(0).args[0].shape[1] == 3 and subject.model.head.out_features == 10
    assert subject.facts.how["model"] == "class Net, built with guessed in_channels=3, num_classes=10 (--arg says otherwise)"


def test_the_argparse_of_the_file_comes_first():
    tail = "\n\ndef main():\n    p = argparse.ArgumentParser()\n    p.add_argument('--num-classes', type=int, default=7)\n"
    assert net(tail=tail).model.head.out_features == 7


def test_what_is_given_is_not_guessed():
    net()
    assert load("net.py", arguments={"num_classes": 4}).model.head.out_features == 4


def test_an_unusual_argument_is_asked_for():
    with pytest.raises(SubjectError, match=r"cannot be built without .*flavour"):
        net("flavour, ")
