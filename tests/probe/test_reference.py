"""Errors against the float64 run: the same draws, the same places, only the arithmetic differs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.probe.recording import compared, record

NET = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Dropout(0.5), nn.LayerNorm(32), nn.Linear(32, 8))


@pytest.mark.parametrize(
    ("precision", "unit_roundoff"), [("float32", 2**-24), ("float16", 2**-11), ("bfloat16", 2**-8), ("amp-bfloat16", 2**-8)]
)
def test_error_is_of_the_order_of_the_unit_roundoff(precision: str, unit_roundoff: float) -> None:
    run = compared(NET, torch.randn(64, 16), precision=precision)
    assert run.error is None
    assert run.output_error is not None and 0.05 * unit_roundoff < run.output_error < 8 * unit_roundoff
    assert run.gradient_error is not None and run.gradient_error < 16 * unit_roundoff
    assert run.gradient_cosine == pytest.approx(1.0, abs=1e-3)


def test_dropout_masks_are_the_same_in_every_precision() -> None:
    run = compared(nn.Dropout(0.5), torch.randn(4096, requires_grad=True), precision="float16")
    assert run.output_error is not None and run.output_error < 2**-11


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_emulation_agrees_with_native_kernels(precision: str) -> None:
    from stabdiag.probe.recorder import Recorder
    from tests.probe.recording import subject_of

    recorder = Recorder(subject_of(NET, torch.randn(32, 16)), torch.device("cpu"))
    with recorder.stage(precision, emulate=False) as stage:
        native = recorder.record(stage)
    with recorder.stage(precision, emulate=True) as stage:
        emulated = recorder.record(stage)
    assert native.error is None and emulated.error is None
    assert [op.name for op in native.phase("forward")] == [op.name for op in emulated.phase("forward")]
    assert emulated.loss == pytest.approx(native.loss, rel=0.02)
    for a, b in zip(native.phase("forward"), emulated.phase("forward"), strict=True):
        one, other = native.output_of(a), emulated.output_of(b)
        assert one is not None and other is not None and one.dtype == other.dtype


def test_explicit_upcasts_stay_float32_when_emulated() -> None:
    class Careful(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.float().square().mean(-1, keepdim=True).rsqrt() * x.float()).to(x.dtype)

    run = record(Careful(), 1000 * torch.ones(2, 8, requires_grad=True), precision="float16")
    assert run.loss == pytest.approx(1.0, rel=1e-2)
    assert not any(v.stats and v.stats.nonfinite for v in run.values)
