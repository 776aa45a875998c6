"""Which optimizer takes the steps, and what is said when it cannot be made."""

from __future__ import annotations

import inspect

import pytest
import torch

from stabdiag.probe.optimizer import check, choose
from stabdiag.probe.runner import probe
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.subject import SubjectError
from tests.probe.training import mlp, subject


def authors(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)


def test_the_authors_optimizer_is_used_and_its_line_is_known() -> None:
    case = subject(optimizer=authors)
    chosen = choose(case, case.model, ScanRequest("model.py"))
    facts = chosen.facts
    assert (facts["name"], facts["lr"], facts["momentum"], facts["chosen_by"]) == ("SGD", 0.3, 0.9, "author")
    assert facts["location"]["line"] == inspect.getsourcelines(authors)[1] + 1
    assert facts["location"]["path"].endswith("test_optimizer.py")


def test_the_command_line_comes_first() -> None:
    case = subject(optimizer=authors)
    facts = choose(case, case.model, ScanRequest("model.py", optimizer="AdaGrad", lr=0.02)).facts
    assert (facts["name"], facts["lr"], facts["chosen_by"]) == ("Adagrad", 0.02, "options")
    facts = choose(case, case.model, ScanRequest("model.py", lr=0.02)).facts
    assert (facts["name"], facts["lr"], facts["momentum"]) == ("SGD", 0.02, 0.9)


def test_without_either_it_is_adamw_and_says_so() -> None:
    case = subject()
    facts = choose(case, case.model, ScanRequest("model.py")).facts
    assert (facts["name"], facts["lr"], facts["chosen_by"]) == ("AdamW", 1e-3, "default")
    assert "no optimizer is declared" in facts["how"]


def test_sparse_gradients_need_another_default() -> None:
    model = torch.nn.EmbeddingBag(10, 4, sparse=True)
    case = subject(make=lambda seed: model, x=torch.randint(0, 10, (6, 3)))
    assert choose(case, model, ScanRequest("model.py")).facts["name"] == "SGD"


CLASSES = [
    name
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and name not in ("Optimizer", "LBFGS", "SparseAdam")
]


@pytest.mark.parametrize("name", CLASSES)
def test_every_optimizer_of_torch_takes_steps(name: str) -> None:
    weight = torch.nn.Linear(6, 4, bias=False)  # one matrix: Muon takes nothing else
    trace = probe(subject(make=lambda seed: weight, x=torch.randn(8, 6)), ScanRequest("model.py", optimizer=name))
    first = trace.experiments.first_steps
    assert (first["error"], first["taken"], first["optimizer"]["name"]) == ("", 2, name)


def test_momentum_of_adam_is_its_first_beta() -> None:
    case = subject()
    chosen = choose(case, case.model, ScanRequest("model.py", optimizer="adam", momentum=0.5))
    assert chosen.groups[0]["betas"] == (0.5, 0.999)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "adamv"}, "did you mean `AdamW`|did you mean `Adam`"),
        ({"optimizer": "LBFGS"}, "several times per step"),
        ({"optimizer": "adagrad", "momentum": 0.9}, "has no momentum"),
        ({"optimizer": "sgd", "lr": -1.0}, "Invalid learning rate"),
    ],
)
def test_options_that_make_no_optimizer_are_told_before_anything_runs(options: dict, message: str) -> None:
    with pytest.raises(SubjectError, match=message) as raised:
        check(ScanRequest("model.py", **options))
    assert raised.value.kind == "usage"


def test_a_make_optimizer_that_fails_is_told_and_replaced() -> None:
    def broken(model: torch.nn.Module) -> None:
        raise ValueError("no such group")

    case = subject(optimizer=broken)
    facts = choose(case, case.model, ScanRequest("model.py")).facts
    assert facts["chosen_by"] == "default"
    assert "no such group" in facts["how"]


def test_several_optimizers_and_a_scheduler() -> None:
    def gan(model: torch.nn.Module) -> tuple:
        first = torch.optim.SGD(model[0].parameters(), lr=0.1)
        second = torch.optim.SGD(model[2].parameters(), lr=0.2)
        return [first, second], [torch.optim.lr_scheduler.StepLR(first, 10)]

    model = mlp()
    chosen = choose(subject(optimizer=gan), model, ScanRequest("model.py"))
    before = [p.detach().clone() for p in model.parameters()]
    model(torch.randn(4, 8)).sum().backward()
    chosen.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_warm_up_from_zero_starts_at_the_rate_it_leads_to() -> None:
    def warm(model: torch.nn.Module) -> torch.optim.Optimizer:
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 1000)
        return optimizer

    case = subject(optimizer=warm)
    assert choose(case, case.model, ScanRequest("model.py")).facts["lr"] == 3e-4


def test_momentum_and_warm_up_will_enlarge_updates() -> None:
    case = subject(optimizer=authors)
    chosen = choose(case, case.model, ScanRequest("model.py"))
    assert chosen.build_up(chosen.groups[0]) == pytest.approx(10.0)
    chosen.groups[0]["initial_lr"] = 3.0
    assert chosen.build_up(chosen.groups[0]) == pytest.approx(100.0)
    assert chosen.facts["warming_up"]
