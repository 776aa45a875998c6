"""The scalar that is differentiated."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from stabdiag.subject.objective import chosen
from stabdiag.subject.outputs import leaves, own_loss
from stabdiag.subject.subject import Inputs, SubjectError

X = torch.randn(12, 6)
IDS = torch.randint(0, 9, (4, 5))
IMAGE = torch.randn(2, 3, 8, 8)


@dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 1)


def objective(model, inputs, output=None):
    return chosen(model(*inputs.args) if output is None else output, inputs, model)


@pytest.mark.parametrize(
    ("model", "inputs", "name"),
    [
        (nn.Linear(6, 4), X, "cross-entropy over 4 classes"),
        (nn.Linear(6, 1), X, "mean square"),
        (nn.Linear(6, 6), X, "mean square"),
        (nn.Sequential(nn.Linear(6, 4), nn.Tanh()), X, "mean square"),
        (nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4)), X, "mean square"),
        (nn.Sequential(nn.Linear(6, 4), nn.LogSoftmax(1)), X, "negative log-likelihood over 4 classes"),
        (nn.Sequential(nn.Linear(6, 4), nn.Softmax(1)), X, "Brier score over 4 classes"),
        (nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 9)), IDS, "cross-entropy over 9 classes"),
        (nn.Sequential(nn.Embedding(9, 6), nn.LayerNorm(6)), IDS, "mean square"),
        (nn.Conv2d(3, 5, 1), IMAGE, "cross-entropy over 5 classes"),
        (nn.Conv2d(3, 3, 1), IMAGE, "mean square"),
        (nn.Conv2d(3, 1, 1), IMAGE, "mean square"),
    ],
)
def test_what_fits_the_output(model, inputs, name):
    found = objective(model, Inputs((inputs,)))
    assert found.name.startswith(name) and found.why
    value = found.loss(model(inputs), Inputs((inputs,)))
    assert value.shape == () and value.requires_grad


def test_the_same_targets_in_every_precision():
    model = nn.Linear(6, 4)
    found = objective(model, Inputs((X,)))
    output = torch.randn(12, 4)
    values = [
        found.loss(output.to(dtype), Inputs((X,))) for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    ]
    assert [v.dtype for v in values] == [torch.float64, torch.float32, torch.bfloat16, torch.float16]
    assert all(abs(v.item() - values[0].item()) < 0.02 for v in values)
    assert found.loss(output, Inputs((X,))) == found.loss(output, Inputs((X,)))


def test_labels_are_balanced():
    model = nn.Linear(6, 4)
    found = objective(model, Inputs((X,)))
    output = torch.zeros(12, 4, requires_grad=True)
    found.loss(output, Inputs((X,))).backward()
    assert torch.allclose(output.grad.sum(0), torch.zeros(4), atol=1e-7)


def test_a_large_output_overflows_in_no_format():
    model = nn.Linear(6, 1)
    output = (model(X) + 3e4).requires_grad_()
    found = objective(model, Inputs((X,)), output)
    assert found.loss(output.half(), Inputs((X,))).isfinite() and "32768" in found.name


def test_the_models_own_loss():
    model = nn.Linear(6, 4)
    logits = model(X)
    for output in ({"loss": logits.sum(), "logits": logits}, (logits, logits.sum()), logits.mean(), (logits.sum(), logits)):
        found = objective(model, Inputs((X,)), output)
        assert found.name.startswith("the model's own loss")
        assert found.loss(output, Inputs((X,))).shape == ()
    losses = {"loss_box": logits.sum(), "loss_class": logits.mean()}
    assert own_loss(losses) == ["loss_box", "loss_class"]
    assert objective(model, Inputs((X,)), losses).loss(losses, Inputs((X,))) == logits.sum() + logits.mean()


def test_a_penalty_beside_the_output_is_not_the_loss():
    model = Heads()
    output = (model.a(X), model.b(X).var())
    assert own_loss(output) == [] and own_loss({"logits": model.a(X), "aux_loss": model.b(X).sum()}) == []
    assert objective(model, Inputs((X,)), output).name.startswith("cross-entropy over 3 classes of output[0]")


def test_every_head_that_reaches_parameters_of_its_own():
    model = Heads()
    output = (model.a(X), model.b(X), model.a(X).detach(), "text", None)
    found = objective(model, Inputs((X,)), output)
    found.loss(output, Inputs((X,))).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert found.name.count("+") == 1


def test_logits_come_before_other_outputs():
    model = Heads()
    output = Output(hidden=model.b(X), logits=model.a(X))
    assert objective(model, Inputs((X,)), output).name.startswith("cross-entropy over 3 classes of output.logits")


def test_paths_of_nested_outputs():
    output = {"a": (torch.ones(1), [torch.ones(2)]), "b": Output(torch.ones(3), torch.ones(4)), "c": 1.0}
    assert [path for path, _ in leaves(output)] == ["a.0", "a.1.0", "b.logits", "b.hidden"]
    distribution = torch.distributions.Normal(torch.zeros(2), torch.ones(2))
    assert [path for path, _ in leaves(distribution)] == ["mean", "stddev"]


def test_nothing_to_differentiate():
    with pytest.raises(SubjectError, match="no float tensor"):
        objective(nn.Linear(6, 4), Inputs((X,)), X.argmax(1))
