"""`--data` with a target beside the inputs: it reaches the loss."""

from pathlib import Path

import pandas
import pytest
import torch

from stabdiag.subject.load import load
from stabdiag.subject.subject import SubjectError

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, {out})

    def forward(self, x):
        return self.a(x)
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def loaded(content, out=3, more=""):
    Path("net.py").write_text(NET.format(out=out) + more)
    torch.save(content, "xy.pt")
    subject = load("net.py", data="xy.pt")
    return subject, subject.objective(subject.model, subject.batch(0)).item()


X = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("content", [(X, torch.arange(100) % 3), {"x": X, "kind": torch.arange(100) % 3}])
def test_classes_reach_the_loss(content):
    subject, loss = loaded(content)
    inputs = subject.batch(0)
    assert subject.facts.objective == "cross-entropy over 3 classes of the data" and "target" in subject.facts.how["inputs"]
    assert torch.equal(inputs.target, torch.arange(64) % 3)
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(subject.model(X[:64]), torch.arange(64) % 3).item())


def test_a_real_target_of_other_shape_is_compared():
    subject, loss = loaded((X, X[:, 0]), out=1)
    assert subject.facts.objective == "mean square of output against the target of the data"
    assert loss == pytest.approx((subject.model(X[:64])[:, 0] - X[:64, 0]).square().mean().item(), rel=1e-5)


def test_the_file_loss_of_two_takes_it():
    subject, loss = loaded((X, X[:, :3]), more="\n\ndef loss(output, target):\n    return (output - target).abs().mean()\n")
    assert subject.facts.objective == "loss(output, target) of the file" and "loss" in subject.facts.declared
    assert loss == pytest.approx((subject.model(X[:64]) - X[:64, :3]).abs().mean().item())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_is_features_and_a_target(kind):
    Path("net.py").write_text(NET.format(out=2))
    frame = pandas.DataFrame(X.numpy(), columns=list("abcde")).assign(name="x", bought=[i % 2 for i in range(100)])
    frame.to_csv("t.csv", index=False) if kind == "csv" else frame.to_parquet("t.parquet")
    subject = load("net.py", data=f"t.{kind}")
    assert subject.facts.objective == "cross-entropy over 2 classes of the data"
    assert torch.allclose(subject.batch(0).args[0], X[:64]) and subject.facts.declared == ["inputs"]


def test_a_table_without_features_is_refused():
    Path("net.py").write_text(NET.format(out=2))
    Path("t.csv").write_text("name\nx\n")
    with pytest.raises(SubjectError, match="expected features and, last, a target"):
        load("net.py", data="t.csv")
