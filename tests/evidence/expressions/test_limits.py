"""The value at which an expression is said to break is the one at which torch breaks in that format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stabdiag.evidence.expressions.forms import expressions
from stabdiag.evidence.expressions.limits import breaking_points, limits_of
from stabdiag.probe.here import probe_file
from stabdiag.settings.request import ScanRequest
from stabdiag.trace.formats import FORMATS
from stabdiag.trace.ops import limits
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
    run = probe_file(ScanRequest(target=str(path)), lambda what, share: None).run("float32")
    assert run is not None
    (expression,) = [e for e in expressions(run) if e.form == form]
    found = [limit.at for limit in limits_of(run, expression, FORMATS[format]) if limit.kind == kind]
    assert found[0] == pytest.approx(first_break(function, DTYPES[format], kind), rel=0.04)


OPS: dict[str, tuple[Callable[[Tensor], Tensor], dict[str, float]]] = {
    "exp": (torch.exp, {}),
    "expm1": (torch.expm1, {}),
    "sinh": (torch.sinh, {}),
    "cosh": (torch.cosh, {}),
    "exp2": (torch.exp2, {}),
    "log": (torch.log, {}),
    "log1p": (torch.log1p, {}),
    "sqrt": (torch.sqrt, {}),
    "rsqrt": (torch.rsqrt, {}),
    "reciprocal": (torch.reciprocal, {}),
    "acos": (torch.acos, {}),
    "asin": (torch.asin, {}),
    "atanh": (torch.atanh, {}),
    "acosh": (torch.acosh, {}),
    "logit": (torch.logit, {}),
    "square": (torch.square, {}),
    "pow": (lambda x: x**-0.5, {"exponent": -0.5}),
    "pow_": (lambda x: x**0.5, {"exponent": 0.5}),
}


@pytest.mark.parametrize("format", DTYPES)
@pytest.mark.parametrize("name", OPS)
def test_an_op_is_finite_before_its_limit_and_not_at_it(name: str, format: str) -> None:
    function, attributes = OPS[name]
    dtype = DTYPES[format]
    for limit in limits(name, attributes, FORMATS[format]):
        inward = -1.0 if limit.side == "above" else 1.0
        margin = 0.02 * max(1.0, abs(limit.at))
        for at, finite in (
            (limit.at + inward * margin, True),
            (limit.at - (0 if abs(limit.at) <= 1 else inward * margin), False),
        ):
            x = torch.tensor(at, dtype=dtype, requires_grad=True)
            y = function(x)
            (slope,) = torch.autograd.grad(y, x)
            assert bool(torch.isfinite(y if limit.kind == "value" else slope)) is finite, (limit, at)


def test_limits_are_the_same_in_words_where_formats_share_them(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(model_file("return torch.log1p(self.a(h)), torch.exp(self.b(h))", "return (out[0] + out[1]).mean()"))
    run = probe_file(ScanRequest(target=str(path)), lambda what, share: None).run("float32")
    assert run is not None
    said = {e.form: breaking_points(run, e, DTYPES) for e in expressions(run)}
    assert said["logarithm"] == "from -1 down"
    assert said["exp"] == "from 88.7 up in float32 and bfloat16, from 11.1 up in float16"


def test_the_stable_form_has_no_limit() -> None:
    assert first_break(F.softplus, torch.float32, "gradient") == float("inf")


def test_the_confirmation_keeps_to_its_budget(tmp_path: Path) -> None:
    lines = "\n".join(f"t{i} = torch.log(torch.softmax(self.a(h) * {i + 1}, 1)).sum()" for i in range(20))
    path = tmp_path / "model.py"
    path.write_text(model_file(lines + "\nreturn " + " + ".join(f"t{i}" for i in range(20)), MEAN))
    trace = probe_file(ScanRequest(target=str(path)), lambda what, share: None)
    confirmation = trace.experiments.confirmation
    assert confirmation["cost"] <= 50
    assert len(confirmation["expressions"]) == 20
