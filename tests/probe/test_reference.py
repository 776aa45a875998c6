"""Errors against the float64 run: the same draws, the same places, only the arithmetic differs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from stabdiag.probe.runner import probe
from stabdiag.settings.request import ScanRequest
from tests.probe.recording import compared, record, subject_of

NET = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Dropout(0.5), nn.LayerNorm(32), nn.Linear(32, 8))


@pytest.mark.parametrize(
    ("precision", "unit_roundoff"), [("float32", 2**-24), ("float16", 2**-11), ("bfloat16", 2**-8), ("amp-bfloat16", 2**-8)]
)
def test_error_is_of_the_order_of_the_unit_roundoff(precision: str, unit_roundoff: float) -> None:
    run = compared(NET, torch.randn(64, 16), precision=precision)
    assert run.error is None
    assert run.output_error is not None and 0.05 * unit_roundoff < run.output_error < 8 * unit_roundoff
    assert run.gradient_error is not None and run.gradient_error < 16 * unit_roundoff
    assert run.gradient_projection == pytest.approx(1.0, abs=0.03)


def test_dropout_masks_are_the_same_in_every_precision() -> None:
    run = compared(nn.Dropout(0.5), torch.randn(4096, requires_grad=True), precision="float16")
    assert run.output_error is not None and run.output_error < 2**-11


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_emulation_agrees_with_native_kernels(precision: str) -> None:
    from stabdiag.probe.recorder import Recorder

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


class Stored(nn.Module):
    """Keeps what it is given in 16 bits, as a cache does."""

    def __init__(self, store: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.store, self.layer = store, nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.store(x).to(self.layer.weight.dtype) - 1000)


def written(x: Tensor) -> Tensor:
    cache = torch.zeros(x.shape, dtype=torch.bfloat16)
    cache[torch.ones(len(x), dtype=torch.bool)] = x.bfloat16()
    return cache


def multiplied(x: Tensor) -> Tensor:
    return x.bfloat16() @ torch.eye(8, dtype=torch.bfloat16)


STORES = {"cast": lambda x: x.bfloat16(), "to": lambda x: x.to(torch.float16), "index": written, "product": multiplied}


@pytest.mark.parametrize("store", STORES)
def test_the_reference_undoes_casts_that_lose_digits(store: str) -> None:
    run = compared(Stored(STORES[store]), 1000 + torch.randn(64, 8), precision="float32")
    assert run.error is None
    assert run.output_error is not None and run.output_error > 0.05


def test_the_reference_keeps_a_cast_that_the_model_cannot_do_without() -> None:
    class Bits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            assert x.half().dtype == torch.float16
            return self.layer(x)

    trace = probe(subject_of(Bits(), torch.randn(64, 8)), ScanRequest("model.py", precisions=["float32"]))
    assert trace.run("float64") is not None


def test_errors_of_outputs_are_relative_to_what_tells_samples_apart() -> None:
    class Offset(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1000

    spread = compared(Offset(), torch.randn(256, 8, requires_grad=True), precision="bfloat16").output_error
    alike = compared(Offset(), torch.ones(256, 8, requires_grad=True), precision="bfloat16").output_error
    one = compared(Offset(), torch.randn(1, 8, requires_grad=True), precision="bfloat16").output_error
    assert spread is not None and spread > 0.5
    assert alike is not None and alike < 2**-8
    assert one is not None and one < 2**-8


def test_what_a_device_runs_as_several_kernels_rounds_in_each() -> None:
    class Cloud(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cdist(x, x)

    points = 180 + torch.randn(40, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    errors = {p: compared(Cloud(), points, precision=p) for p in ("float32", "float16")}
    for precision, run in errors.items():
        distances = [run.values[v].stats for v in run.outputs]
        overflowed = any(s is not None and s.nonfinite for s in distances)
        assert run.error is None and overflowed == (precision == "float16")


def test_a_convolution_is_one_kernel() -> None:
    run = compared(nn.Conv2d(3, 8, 3), torch.randn(4, 3, 8, 8), precision="bfloat16")
    assert run.error is None and run.output_error is not None and run.output_error < 2**-8
