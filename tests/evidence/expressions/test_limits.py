"""The value at which an expression is said to break is the one at which torch breaks in that format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stabdiag.evidence.expressions.judgement import limit_of
from stabdiag.probe.here import probe_file
from stabdiag.settings.request import ScanRequest
from tests.evidence.expressions.zoo import MEAN, model_file

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LOG_SOFTMAX = ("return torch.softmax(self.a(h), 1)", "return -torch.log(out).mean()")
ONE_MINUS = ("return torch.sigmoid(self.one(h))", "return -torch.log(1 - out).mean()")
SOFTPLUS = ("return torch.log(1 + torch.exp(self.a(h)))", MEAN)
ROOT = ("return torch.sqrt(torch.exp(self.a(h)))", MEAN)


def first_break(function: Callable[[Tensor], Tensor], dtype: torch.dtype, kind: str) -> float:
    """The first point of a fine grid at which the value or the gradient of a function of one number is not finite."""
    for z in torch.arange(1.0, 120.0, 0.05):
        x = z.to(dtype).requires_grad_()
        y = function(x)
        broken = y if kind == "value" else torch.autograd.grad(y, x)[0]
        if not torch.isfinite(broken):
            return float(x.detach())
    return float("inf")


def of_gap(x: Tensor) -> Tensor:
    return torch.log(torch.softmax(torch.stack([torch.zeros_like(x), -x]), 0))[1]


@pytest.mark.parametrize("format", DTYPES)
@pytest.mark.parametrize(
    ("text", "form", "function", "kind"),
    [
        (LOG_SOFTMAX, "log-of-softmax", of_gap, "value"),
        (LOG_SOFTMAX, "log-of-softmax", of_gap, "gradient"),
        (ONE_MINUS, "log-of-sigmoid", lambda x: torch.log(1 - torch.sigmoid(x)), "value"),
        (SOFTPLUS, "softplus-by-hand", lambda x: torch.log(1 + torch.exp(x)), "value"),
        (ROOT, "root-of-exp", lambda x: torch.sqrt(torch.exp(x)), "value"),
    ],
)
def test_reported_limits_are_those_of_the_format(
    text: tuple[str, str], form: str, function: Callable[[Tensor], Tensor], kind: str, format: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.py"
    path.write_text(model_file(*text))
    trace = probe_file(ScanRequest(target=str(path)), lambda what, share: None)
    results = trace.experiments["confirmation"]["expressions"]
    (result,) = [r for key, r in results.items() if key.startswith(form)]
    limit = limit_of(form, result["breaks"][format][kind])
    assert limit == pytest.approx(first_break(function, DTYPES[format], kind), rel=0.04)


def test_the_stable_form_has_no_limit() -> None:
    assert first_break(F.softplus, torch.float32, "gradient") == float("inf")


def test_the_confirmation_keeps_to_its_budget(tmp_path: Path) -> None:
    lines = "\n".join(f"t{i} = torch.log(torch.softmax(self.a(h) * {i + 1}, 1)).sum()" for i in range(20))
    path = tmp_path / "model.py"
    path.write_text(model_file(lines + "\nreturn " + " + ".join(f"t{i}" for i in range(20)), MEAN))
    trace = probe_file(ScanRequest(target=str(path)), lambda what, share: None)
    confirmation = trace.experiments["confirmation"]
    assert confirmation["cost"] <= 50
    assert len(confirmation["expressions"]) == 20
