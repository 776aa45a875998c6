"""SD4: softmax and attention in many styles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from stabdiag.finding import Finding
from stabdiag.scanning.pipeline import report_on, scan_model
from stabdiag.settings.request import ScanRequest
from tests.rule_examples import scanned
from tests.rules.gradient_zoo import HEALTHY, probed

LOWEST = torch.finfo(torch.float32).min


def findings(model: nn.Module, x: torch.Tensor, precisions: tuple[str, ...] = ("float32",)) -> list[Finding]:
    request = ScanRequest(target="model", precisions=list(precisions), select=["SD4"])
    report = scan_model(model, (x,), lambda y: y.float().square().mean(), request)
    return report.findings


class Attention(nn.Module):
    """One attention; `weigh(scores, batch, tokens)` masks and normalises."""

    def __init__(self, weigh: Callable, heads: int = 2) -> None:
        super().__init__()
        self.qkv, self.weigh, self.heads = nn.Linear(16, 96), weigh, heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.weigh(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, b, t) @ v


def tokens() -> torch.Tensor:
    return torch.randn(4, 12, 16, generator=torch.Generator().manual_seed(1))


def by_hand(s: torch.Tensor) -> torch.Tensor:
    e = torch.exp(s - s.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


def masked(softmax: Callable, padded: int | None, fill: float = -torch.inf) -> Callable:
    """Causal, with one sample that is all padding unless `padded` is None."""

    def weigh(s: torch.Tensor, b: int, t: int) -> torch.Tensor:
        keep = torch.ones(b, 1, t, t, dtype=torch.bool).tril()
        if padded is not None:
            keep[padded] = False
        return softmax(s.masked_fill(~keep, fill))

    return weigh


def two_planes(s: torch.Tensor, b: int, t: int) -> torch.Tensor:
    causal = torch.full((t, t), LOWEST).triu(1)
    padding = torch.zeros(b, 1, 1, t)
    padding[2] = LOWEST
    rows = torch.zeros(b, 1, t, 1)
    rows[2, 0, 5] = LOWEST
    return (s + (causal + padding + rows)).softmax(-1)


SOFTMAXES = {"softmax": lambda s: s.softmax(-1), "by hand": by_hand, "log": lambda s: F.log_softmax(s, -1).exp()}


@pytest.mark.parametrize("style", SOFTMAXES)
def test_a_sample_that_is_all_padding(style: str) -> None:
    torch.manual_seed(0)
    found = findings(Attention(masked(SOFTMAXES[style], 3)), tokens())
    assert [(f.code, f.severity) for f in found] == [("SD403", "error")]
    assert style == "by hand" or "batch 3" in found[0].message
    assert found[0].location is not None
    assert "masked_fill" in found[0].location.source
    assert findings(Attention(masked(SOFTMAXES[style], None)), tokens()) == []


def test_two_planes_of_the_lowest_number_that_add_up() -> None:
    torch.manual_seed(0)
    found = findings(Attention(two_planes), tokens())
    assert [(f.code, f.severity) for f in found] == [("SD403", "error")]
    assert "batch 2, query 5" in found[0].message
    assert "causal + padding" in found[0].location.source  # type: ignore[union-attr]


@pytest.mark.parametrize("fill", [-1e4, -1e9, LOWEST])
def test_finite_masks_are_no_underflow(fill: float) -> None:
    torch.manual_seed(0)
    assert findings(Attention(masked(SOFTMAXES["softmax"], None, fill)), tokens()) == []


def test_scaled_dot_product_attention_gives_masked_rows_zero() -> None:
    class Native(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = self.q(x)
            keep = torch.ones(len(x), x.shape[1], x.shape[1], dtype=torch.bool)
            keep[1] = False
            return F.scaled_dot_product_attention(q, q, q, attn_mask=keep)

    torch.manual_seed(0)
    assert [(f.code, f.severity) for f in findings(Native(), tokens())] == [("SD403", "info")]


def test_multihead_attention_names_the_sample() -> None:
    class Padded(nn.Module):
        def __init__(self, sample: int | None) -> None:
            super().__init__()
            self.attention, self.sample = nn.MultiheadAttention(16, 4, batch_first=True), sample

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            padding = torch.zeros(x.shape[:2], dtype=torch.bool)
            padding[:, -3:] = True
            if self.sample is not None:
                padding[self.sample] = True
            return self.attention(x, x, x, key_padding_mask=padding)[0]

    torch.manual_seed(0)
    found = findings(Padded(2), tokens())
    assert [(f.code, f.severity) for f in found] == [("SD403", "error")]
    assert "batch 2" in found[0].message
    assert findings(Padded(None), tokens()) == []


def test_rows_with_one_key_are_one_hot_by_construction() -> None:
    torch.manual_seed(0)
    diagonal = lambda s, b, t: s.masked_fill(~torch.eye(t, dtype=torch.bool), -torch.inf).softmax(-1)  # noqa: E731
    assert findings(Attention(diagonal), tokens()) == []


MODEL = """import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear({width}, {width}), nn.Linear({width}, {width})
        nn.init.normal_(self.q.weight, std={std})
        nn.init.normal_(self.k.weight, std={std})

    def forward(self, x):
        return ((self.q(x) @ self.k(x).transpose(1, 2)) * {scale}).softmax(-1) @ x


def build_model():
    torch.manual_seed({seed})
    return Net()


def example_inputs():
    return (torch.randn(4, {tokens}, {width}, generator=torch.Generator().manual_seed({seed})),)


def loss(output):
    return {factor} * output.square().mean()
"""


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(seed=st.integers(0, 99), count=st.integers(8, 40), width=st.sampled_from([64, 128]), factor=st.floats(1e-3, 1e3))
def test_collapse_is_told_from_a_scaled_attention(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, width: int, factor: float
) -> None:
    folders: list[Path] = [tmp_path_factory.mktemp("model") for _ in range(2)]
    given = {"seed": seed, "tokens": count, "width": width, "factor": factor}
    sharp = scanned(MODEL.format(std=0.5, scale=1.0, **given), folders[0], precisions=["float32"], select=["SD4"])
    assert any(f.severity == "error" and f.code in ("SD404", "SD405") for f in sharp.findings)
    soft = scanned(
        MODEL.format(std=width**-0.5, scale=width**-0.5, **given), folders[1], precisions=["float32"], select=["SD4"]
    )
    assert soft.findings == []


def test_attention_over_one_token_is_no_singleton_softmax() -> None:
    trace = probed(HEALTHY["attention_on_one_token"](0, 32, 8))
    assert "SD612" not in {f.code for f in report_on(trace, ScanRequest("model")).findings}
