"""SD3 and SD5 on models written for them: what is reported, on which line, and what stays silent."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stabdiag.judging.report import SubjectReport
from tests.rule_examples import expected_lines, scanned

MODEL = """
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
{init}

    def forward(self, x):
{forward}


def build_model():
    torch.manual_seed({seed})
    return Net()


def example_inputs():
    g = torch.Generator().manual_seed(1)
    return ({inputs},)


def loss(output):
    return output.float().square().mean()
"""


def model(init: str, forward: str, inputs: str, seed: int = 0) -> str:
    def block(lines: str) -> str:
        return "\n".join(f"        {line}" for line in lines.strip().splitlines())

    return MODEL.format(init=block(init), forward=block(forward), inputs=inputs, seed=seed)


SICK = {
    "chance-of-a-sequence": model(
        "self.o = nn.Linear(16, 40)",
        """p = torch.ones(8, dtype=x.dtype)
for _ in range(60):
    p = p * self.o(x).softmax(-1)[:, 3]  # expect: SD304
return p.log() / 60""",
        "torch.randn(8, 16, generator=g)",
    ),
    "clock-in-16-bits": model(
        "self.a, self.b = nn.Linear(11, 32), nn.Linear(32, 4)",
        """clock = x.half()  # expect: SD501
return self.b(torch.tanh(self.a(clock.diff(dim=1).to(self.b.weight.dtype))))""",
        "40_000 + torch.rand(64, 12, generator=g).cumsum(1)",
    ),
    "healed-inside-a-small-branch": model(
        "self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 16)",
        """h = self.a(x) * 600
n = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5)  # expect: SD302
return x + 0.05 * self.b(n)""",
        "torch.randn(8, 16, generator=g)",
    ),
    "nan-beside-a-mask": model(
        "self.o = nn.Linear(16, 6)",
        """p = self.o(x).masked_fill(torch.arange(6) > 3, float("-inf")).log_softmax(-1)

return -(p.exp() * p).sum(-1)  # expect: SD301""",
        "torch.randn(8, 16, generator=g)",
    ),
    "healed-rms-norm": model(
        "self.a, self.b = nn.Linear(16, 32), nn.Linear(32, 4)",
        """h = self.a(x) * 600
n = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5)  # expect: SD302
return self.b(n)""",
        "torch.randn(8, 16, generator=g)",
    ),
    "sum-of-squares": model(
        "self.a, self.b = nn.Linear(64, 4096), nn.Linear(4096, 4)",
        """h = 20 * self.a(x)
h = h / ((h ** 2).sum(-1, keepdim=True) + 1e-3).sqrt()  # expect: SD302
return self.b(h)""",
        "torch.randn(8, 64, generator=g)",
    ),
    "mask-literal": model(
        "self.q, self.k = nn.Linear(16, 16), nn.Linear(16, 16)",
        """s = self.q(x) @ self.k(x).transpose(1, 2) / 4
mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
s = s.masked_fill(mask, -1e9)  # expect: SD305
return s.softmax(-1) @ x""",
        "torch.randn(2, 8, 16, generator=g)",
    ),
    "mask-literal-in-place": model(
        "self.q, self.k = nn.Linear(16, 16), nn.Linear(16, 16)",
        """s = self.q(x) @ self.k(x).transpose(1, 2) / 4
mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
s.masked_fill_(mask, -1e9)  # expect: SD305
return s.softmax(-1) @ x""",
        "torch.randn(2, 8, 16, generator=g)",
    ),
    "count-as-a-tensor": model(
        "self.a, self.o = nn.Linear(4, 8), nn.Linear(8, 4)",
        """h = torch.tanh(self.a(x))
n = x.new_tensor(x.shape[0] * 300)  # expect: SD305
return self.o(h * (1e4 / n) + h.mean() / n)""",
        "torch.randn(400, 4, generator=g)",
    ),
    "positions-in-model-dtype": model(
        "self.t, self.p, self.o = nn.Embedding(30, 8), nn.Embedding(500, 8), nn.Linear(8, 30)",
        """position = torch.arange(x.shape[1], dtype=self.t.weight.dtype)  # expect: SD305
return self.o(self.t(x) + self.p(position.long()))""",
        "torch.randint(0, 30, (2, 400), generator=g)",
    ),
    "normalise-padding": model(
        "self.e, self.o = nn.Embedding(20, 16, padding_idx=0), nn.Linear(16, 4)",
        """h = F.normalize(self.e(x), dim=-1)  # expect: SD505
return self.o(h)""",
        "torch.randint(0, 20, (4, 12), generator=g)",
    ),
    "timestep-angles": model(
        "self.e, self.o = nn.Linear(32, 16), nn.Linear(16, 4)",
        """t = torch.arange(1000)[::20]
w = torch.exp(-torch.arange(16, dtype=x.dtype) / 4)
a = t[:, None].to(x.dtype) * w  # expect: SD501
h = torch.cat([a.sin(), a.cos()], -1)
return self.o(torch.tanh(self.e(h)) * x)""",
        "torch.randn(50, 16, generator=g)",
    ),
    "timestep-angles-before-causal-attention": model(
        "self.q, self.o = nn.Linear(16, 16), nn.Linear(16, 4)",
        """t = torch.arange(x.shape[1], dtype=x.dtype)
a = t[:, None] * torch.exp(-torch.arange(16, dtype=x.dtype) / 16)  # expect: SD501
q = self.q(x) * a.cos()
return self.o(q + F.scaled_dot_product_attention(8 * q, q, q, is_causal=True))""",
        "torch.randn(2, 600, 16, generator=g)",
    ),
    "positions-counted-in-model-dtype": model(
        "self.t, self.p, self.o = nn.Embedding(30, 8), nn.Embedding(500, 8), nn.Linear(8, 30)",
        """there = (x > 0).to(self.t.weight.dtype)
position = torch.cumsum(there, 1) * there  # expect: SD501
return self.o(self.t(x) + self.p(position.long() - 1))""",
        "torch.randint(1, 30, (2, 400), generator=g)",
    ),
    "expanded-distance": model(
        "self.c, self.o = nn.Parameter(100 + torch.randn(10, 3)), nn.Linear(10, 4)",
        """d2 = (x**2).sum(-1, keepdim=True) + (self.c**2).sum(-1) - 2 * x @ self.c.T  # expect: SD503
return self.o(torch.exp(-d2))""",
        "100 + torch.randn(32, 3, generator=g)",
    ),
    "nan-parameter": model(
        """self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
self.b.weight.data[0, 0] = float("nan")""",
        """h = self.a(x)
return self.b(h)  # expect: SD301""",
        "torch.randn(8, 4, generator=g)",
    ),
}

HEALTHY = {
    "masked-logits-near-the-end-of-float16": model(
        "self.o = nn.Linear(16, 6)",
        """z = self.o(x).masked_fill(torch.arange(6) > 3, -6e4)
return F.log_softmax(z / 1.05, -1)[:, :4]""",
        "torch.randn(8, 16, generator=g)",
    ),
    "wide-minimum-clamped-before-log-softmax": model(
        "self.o = nn.Linear(16, 6)",
        """m = torch.where(torch.arange(6) < 4, 0.0, torch.finfo(torch.float32).min).to(x.dtype)
m = m.clamp(min=torch.finfo(x.dtype).min)
return F.log_softmax(self.o(x) + m, -1)[:, :4]""",
        "torch.randn(8, 16, generator=g)",
    ),
    "wide-minimum-replaced-before-a-maximum": model(
        "self.o = nn.Linear(16, 6)",
        """m = torch.where(torch.arange(6) < 4, 0.0, torch.finfo(torch.float32).min).to(x.dtype)
m = m.nan_to_num(neginf=torch.finfo(x.dtype).min)
return (self.o(x) + m).amax(-1)""",
        "torch.randn(8, 16, generator=g)",
    ),
    "number-as-a-tensor-that-fits": model(
        "self.a, self.o = nn.Linear(4, 8), nn.Linear(8, 4)",
        """h = torch.tanh(self.a(x))
return self.o(h * (1e4 / x.new_tensor(x.shape[0] * 30)))""",
        "torch.randn(400, 4, generator=g)",
    ),
    "minimum-masks": model(
        "self.q, self.k, self.n = nn.Linear(16, 16), nn.Linear(16, 16), nn.LayerNorm(16, eps=1e-12)",
        """s = self.q(x) @ self.k(x).transpose(1, 2) / 4
m = torch.zeros(x.shape[1], x.shape[1], dtype=x.dtype)
m = m.masked_fill(torch.ones_like(m, dtype=torch.bool).triu(1), torch.finfo(x.dtype).min)
return self.n((s + m + m).softmax(-1) @ x)""",
        "torch.randn(2, 8, 16, generator=g)",
    ),
    "mask-by-arithmetic": model(
        """self.q, self.k = nn.Linear(16, 16), nn.Linear(16, 16)
self.register_buffer("seen", torch.ones(8, 8).tril())""",
        """s = self.q(x) @ self.k(x).transpose(1, 2) / 4
s = s * self.seen + -1e4 * (1 - self.seen)
return s.softmax(-1) @ x""",
        "torch.randn(2, 8, 16, generator=g)",
    ),
    "sanitised-where": model(
        "self.a, self.o = nn.Linear(16, 16), nn.Linear(16, 3)",
        """h = self.a(x)
safe = torch.where(h > 0, h, torch.ones_like(h))
y = torch.where(h > 0, safe.log(), torch.zeros_like(h))
return self.o(y.clamp(-5, 5)) + F.normalize(self.o(h), dim=-1)""",
        "torch.randn(8, 16, generator=g)",
    ),
    "discarded-infinity": model(
        "self.a = nn.Linear(8, 8)",
        """h = self.a(x)
unused = (h * 0 + 1) / 0.0
return h + (unused.isinf() & False)""",
        "torch.randn(8, 8, generator=g)",
    ),
    "double-backward": model(
        "self.n = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 1))",
        """x = x.detach().requires_grad_(True)
u = self.n(x)
g = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
return g[:, :1] + u * g[:, 1:]""",
        "torch.rand(64, 2, generator=g)",
    ),
    "epsilon-by-dtype": model(
        "self.a, self.o = nn.Linear(8, 16), nn.Linear(16, 2)",
        """h = 0.02 * self.a(x)
eps = 1e-5 if x.dtype == torch.float32 else 2e-5
return self.o((h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True) + eps).sqrt())""",
        "torch.randn(32, 8, generator=g)",
    ),
    "features-of-different-scale": model(
        "self.n, self.m = nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))",
        "return self.m(self.n(x))",
        "torch.randn(64, 4, generator=g) * torch.tensor([1.0, 10.0, 100.0, 1.0]) + torch.tensor([0.0, 50.0, 300.0, 2.0])",
    ),
    "centring": model(
        "self.m = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))",
        "return self.m(x - x.mean(0))",
        "100 + torch.randn(64, 8, generator=g)",
    ),
    "mixed-precision-by-hand": model(
        "self.a, self.b = nn.Linear(16, 32), nn.Linear(32, 4)",
        """h = F.linear(x.bfloat16(), self.a.weight.bfloat16()).to(self.b.weight.dtype)
return self.b(torch.tanh(h))""",
        "torch.randn(64, 16, generator=g)",
    ),
}


def own(report: SubjectReport) -> list[str]:
    found = [f for f in report.findings if f.code[:3] in ("SD3", "SD5") and f.code != "SD504"]
    return [f"{f.code} {f.severity} {f.message}" for f in found if f.severity != "info"]


@pytest.mark.parametrize("name", SICK)
def test_defects_are_found_on_their_line(name: str, tmp_path: Path) -> None:
    code = SICK[name]
    report = scanned(code, tmp_path)
    expected = [rule for rule in ("SD301", "SD302", "SD305", "SD501", "SD503", "SD505") if expected_lines(code, rule)]
    for rule in expected:
        found = [f for f in report.findings if f.code == rule]
        assert found, [f.message for f in report.findings]
        assert {f.location.line for f in found if f.location} == expected_lines(code, rule)
        assert any(f.severity == "error" for f in found)


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_models_are_silent(name: str, tmp_path: Path) -> None:
    assert own(scanned(HEALTHY[name], tmp_path)) == []


def test_a_break_in_the_authors_code_is_a_verdict_of_the_precision(tmp_path: Path) -> None:
    report = scanned(SICK["mask-literal"], tmp_path)
    float16 = next(v for v in report.precisions if v.name == "float16")
    assert float16.verdict == "fails"
    assert float16.where.endswith(f":{expected_lines(SICK['mask-literal'], 'SD305').pop()}")


def test_products_of_two_dtypes_do_not_run_silently(tmp_path: Path) -> None:
    report = scanned(model("self.o = nn.Linear(8, 3)", "return self.o(x.float())", "torch.randn(4, 8, generator=g)"), tmp_path)
    assert {v.name: v.verdict for v in report.precisions}["bfloat16"] == "not-run"
    assert any(f.code == "SD002" and "bfloat16" in f.precisions for f in report.findings)


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 99), width=st.sampled_from([32, 64, 128]), batch=st.integers(1, 6))
def test_overflow_before_the_scale_whatever_the_seed_and_width(tmp_path: Path, seed: int, width: int, batch: int) -> None:
    code = model(
        f"""self.q, self.k = nn.Linear({width}, {width}), nn.Linear({width}, {width})
nn.init.normal_(self.q.weight, std=160 / {width}**0.5)
nn.init.normal_(self.k.weight, std=160 / {width}**0.5)""",
        f"""s = self.q(x) @ self.k(x).transpose(1, 2)  # expect: SD302
return (s / {width}**0.5).softmax(-1) @ x""",
        f"torch.randn({batch}, 8, {width}, generator=g)",
        seed,
    )
    report = scanned(code, tmp_path)
    overflow = [f for f in report.findings if "SD302" in (f.code, *f.evidence.get("consequences", []))]
    assert {f.location.line for f in overflow if f.location} == expected_lines(code, "SD302")


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 99), width=st.sampled_from([16, 48, 96]), batch=st.integers(2, 9))
def test_a_plain_network_is_silent_whatever_the_seed_and_width(tmp_path: Path, seed: int, width: int, batch: int) -> None:
    code = model(
        f"self.n = nn.Sequential(nn.Linear(8, {width}), nn.LayerNorm({width}), nn.GELU(), nn.Linear({width}, 3))",
        "return self.n(x)",
        f"torch.randn({batch}, 8, generator=g)",
        seed,
    )
    assert own(scanned(code, tmp_path)) == []


@pytest.mark.parametrize(("declared", "severity"), [("", "info"), ('PRECISIONS = ("float32", "bfloat16")', "warning")])
def test_data_that_do_not_fit_a_format_are_a_warning_to_who_wants_it(declared: str, severity: str, tmp_path: Path) -> None:
    code = HEALTHY["centring"].replace("(100 + ", "(5000 + ")
    report = scanned(f"{code}\n{declared}\n", tmp_path)
    found = [f for f in report.findings if f.code == "SD502" and "bfloat16" in f.precisions]
    assert [f.severity for f in found] == [severity]
    bfloat16 = next(v for v in report.precisions if v.name == "bfloat16")
    assert bfloat16.verdict == "fails" and bfloat16.where
