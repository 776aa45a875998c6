"""SD106, SD504 and SD801 to SD806 on small models: caught with the defect, silent without it, whatever seed, width or scale."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stabdiag.probe.runner import probe
from stabdiag.scanning.pipeline import report_on
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.subject import Subject
from tests.probe.training import classes, mlp, subject

OURS = ("SD106", "SD504", "SD80")


def codes(case: Subject, **options: Any) -> dict[str, str]:
    """Code -> severity of what our rules say."""
    request = ScanRequest("model.py", budget=40.0, **options)
    findings = report_on(probe(case, request), request).findings
    return {f.code: f.severity.value for f in findings if f.code.startswith(OURS) and f.severity.value != "info"}


def sgd(lr: float, momentum: float = 0.0) -> Any:
    return lambda model: torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)


def wide(width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, width), nn.GELU(), nn.Linear(width, 4))


@settings(max_examples=8, deadline=None)
@given(st.integers(16, 256), st.integers(0, 100))
def test_a_rate_that_bfloat16_does_not_notice(width: int, seed: int) -> None:
    frozen = subject(make=lambda k: wide(width, seed + k), optimizer=sgd(1e-6))
    assert codes(frozen, precisions=["float32", "bfloat16"])["SD504"] == "error"
    sound = subject(make=lambda k: wide(width, seed + k), optimizer=sgd(0.5))
    assert "SD504" not in codes(sound, precisions=["float32", "bfloat16"])


def test_momentum_that_will_build_up_is_given_time() -> None:
    slow = subject(optimizer=sgd(2e-3))
    rolling = subject(optimizer=sgd(2e-3, momentum=0.99))
    assert "SD504" in codes(slow, precisions=["float32", "bfloat16"])
    assert "SD504" not in codes(rolling, precisions=["float32", "bfloat16"])


def test_nobodys_learning_rate_is_nobodys_fault() -> None:
    class Ones(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.head = nn.Parameter(torch.full((8,), 8.0)), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x * self.weight)

    assert codes(subject(make=lambda k: Ones())) == {}


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 100), st.sampled_from([1e-9, 1e-10]))
def test_a_loss_below_epsilon(seed: int, weight: float) -> None:
    def adam(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=1e-3)

    tiny = subject(make=lambda k: wide(32, seed + k), loss=lambda o: classes(o) * weight, optimizer=adam)
    assert codes(tiny)["SD106"] == "error"
    assert "SD106" not in codes(subject(make=lambda k: wide(32, seed + k), optimizer=adam))


@pytest.mark.parametrize(("lr", "severity"), [(0.1, None), (1e3, "error")])
def test_divergence(lr: float, severity: str | None) -> None:
    def regression(output: torch.Tensor) -> torch.Tensor:
        return (output - 1).square().mean()

    case = subject(loss=regression, optimizer=sgd(lr))
    assert codes(case, steps=10, precisions=["float32"]).get("SD801") == severity


@pytest.mark.parametrize("lr", [30.0, 1e3])
def test_a_rate_that_diverges_is_lowered_to_steps_of_one_per_cent(lr: float) -> None:
    def regression(output: torch.Tensor) -> torch.Tensor:
        return (output - 1).square().mean()

    request = ScanRequest("model.py", steps=10, precisions=["float32"])
    found = report_on(probe(subject(loss=regression, optimizer=sgd(lr)), request), request).findings
    lower = next(f for f in found if f.code == "SD801").evidence["calmer_lr"]
    assert lower < lr / 10
    assert "SD801" not in codes(subject(loss=regression, optimizer=sgd(lower)), steps=10, precisions=["float32"])


def test_steps_that_break_as_the_model_is_built_are_one_finding() -> None:
    def broken(output: torch.Tensor) -> torch.Tensor:
        return torch.log(output - output.amin()).square().mean()

    request = ScanRequest("model.py", steps=4, precisions=["float32", "amp-float16"])
    found = report_on(probe(subject(loss=broken), request), request).findings
    assert not {"SD801", "SD803"} & {f.code for f in found}
    cause = next(f for f in found if f.severity.value == "error")
    assert "SD801" in cause.evidence["consequences"]


def test_divergence_is_told_once_for_all_precisions() -> None:
    case = subject(loss=lambda o: (o - 1).square().mean(), optimizer=sgd(100.0))
    request = ScanRequest("model.py", steps=10, precisions=["float32", "bfloat16"])
    found = [f for f in report_on(probe(case, request), request).findings if f.code == "SD801"]
    assert [f.precisions for f in found] == [["float32", "bfloat16"]]


def test_no_progress() -> None:
    assert codes(subject(optimizer=sgd(1e-9)), steps=5, precisions=["float32"])["SD801"] == "warning"


def test_a_loss_that_underflows_in_float16_names_the_scale_that_works() -> None:
    case = subject(loss=lambda o: classes(o.float()) * 1e-6, optimizer=sgd(3e4))
    request = ScanRequest("model.py", steps=6, precisions=["float32", "float16"])
    finding = next(f for f in report_on(probe(case, request), request).findings if f.code == "SD801")
    assert finding.precisions == ["float16"]
    assert finding.evidence["loss_scale"] > 1
    assert finding.fixes[0].name == "loss-scaling"
    assert finding.fixes[0].proven


def test_gradients_of_1e20_clipped() -> None:
    case = subject(loss=lambda o: classes(o) * 1e21, optimizer=sgd(0.1))
    assert codes(case, clip=1.0)["SD805"] == "error"
    assert "SD805" not in codes(case)


def test_running_statistics_that_overflow() -> None:
    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 4))

    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    assert codes(subject(make=make, x=2000 * x), precisions=["float32", "float16"])["SD804"] == "error"
    assert "SD804" not in codes(subject(make=make, x=2000 * x), precisions=["float32", "bfloat16"])
    assert "SD804" not in codes(subject(make=make, x=x), precisions=["float32", "float16"])


def test_an_infinite_mask_is_no_poison() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 4)
            self.register_buffer("mask", torch.full((4,), float("-inf")).masked_fill(torch.arange(4) > 0, 0.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x).softmax(-1) + (self.head(x) + self.mask).softmax(-1)

    assert codes(subject(make=lambda k: Masked()), steps=3, precisions=["float32", "float16"]) == {}


@pytest.mark.parametrize(("lr", "found"), [(1e-7, True), (0.1, False), (1e3, True)])
def test_update_ratio(lr: float, found: bool) -> None:
    assert ("SD806" in codes(subject(optimizer=sgd(lr)))) is found


@pytest.mark.parametrize(("lr", "found"), [(0.002, False), (0.05, False), (0.99, True)])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_weights_that_must_grow_take_large_steps(lr: float, found: bool, scale: float) -> None:
    """A quadratic: steps at the best rate are right however small the weights, steps near the limit of stability are not."""
    x = torch.randn(128, 3, generator=torch.Generator().manual_seed(1))
    target = scale * (30 * x[:, 0] - 20 * x[:, 1] + 40)

    def make(k: int) -> nn.Module:
        torch.manual_seed(k)
        return nn.Linear(3, 1)

    made = subject(make=make, x=x, loss=lambda y: (y[:, 0] - target.to(y)).square().mean(), optimizer=sgd(lr))
    assert ("SD806" in codes(made)) is found


def test_a_healthy_model_is_silent_in_every_mode() -> None:
    modes = ["float32", "float16", "bfloat16", "amp-float16", "amp-bfloat16"]
    assert codes(subject(make=mlp, optimizer=sgd(0.1, 0.9)), steps=10, precisions=modes) == {}


def test_an_optimizer_epsilon_that_is_0_in_float16() -> None:
    case = subject(optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-3))

    def said(**options: Any) -> list[tuple[str, str]]:
        request = ScanRequest("model.py", steps=3, **options)
        return [(f.code, f.severity.value) for f in report_on(probe(case, request), request).findings if f.phase == "step"]

    assert said(precisions=["float32", "float16"]) == [("SD505", "error")]
    assert said() == [("SD505", "info")]
    safe = subject(optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-4))
    assert codes(safe, steps=3, precisions=["float32", "float16"]) == {}
