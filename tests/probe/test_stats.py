from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from stabdiag.recording.stats import reference as stats_reference
from stabdiag.recording.stats import tensor as stats
from stabdiag.recording.stats.tensor import measure, resolve, sample, sample_positions
from stabdiag.trace import Stats

WORDS = {
    torch.float64: (torch.int64, 64),
    torch.float32: (torch.int32, 32),
    torch.float16: (torch.int16, 16),
    torch.bfloat16: (torch.int16, 16),
}
DTYPES = list(WORDS)


def expected(tensor: torch.Tensor) -> Stats:
    """By the reference, over the elements in memory order."""
    flat = tensor.reshape(-1)
    return stats_reference.measure_flat(flat, stats._stride(flat.numel()))


def assert_same(actual: Stats, wanted: Stats) -> None:
    for name in (
        "count",
        "nan",
        "posinf",
        "neginf",
        "zeros",
        "min",
        "max",
        "max_abs",
        "min_abs",
        "sampled",
        "histogram",
    ):
        assert getattr(actual, name) == getattr(wanted, name), name
    if wanted.max_abs < 1e150:  # beyond, float64 overflows, and the order of summation decides how
        assert actual.sum == pytest.approx(wanted.sum, abs=1e-12 * wanted.max_abs * wanted.sampled)
        assert actual.sum_sq == pytest.approx(wanted.sum_sq, rel=1e-12)


@st.composite
def patterns(draw: st.DrawFn) -> torch.Tensor:
    """Any bit patterns, the special ones often: NaN with any payload, Inf, zeros of both signs, subnormals."""
    dtype = draw(st.sampled_from(DTYPES))
    word, width = WORDS[dtype]
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0], dtype=dtype).view(word).tolist()
    small = st.integers(-64, 64)
    anything = st.integers(-(2 ** (width - 1)), 2 ** (width - 1) - 1)
    words = draw(st.lists(st.sampled_from(special) | small | anything, min_size=1, max_size=80))
    return torch.tensor(words, dtype=word).view(dtype)


@settings(deadline=None)
@given(patterns())
def test_every_bit_pattern_is_measured_as_the_reference_does(tensor: torch.Tensor) -> None:
    assert_same(measure(tensor), expected(tensor))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 7, 8191, 8193, 16_384, 16_385, 100_003, 3_000_017])
def test_sizes_around_block_sample_and_thread_limits(dtype: torch.dtype, size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    tensor = torch.randn(size, generator=generator, dtype=torch.float64).mul(1e-3).to(dtype)
    tensor[:: 1 + size // 3] = 0.0
    tensor[size // 2] = 3.0
    assert_same(measure(tensor), expected(tensor))
    tensor[size - 1] = -math.inf
    tensor[0] = math.nan
    assert_same(measure(tensor), expected(tensor))


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_patterns_of_sixteen_bits(dtype: torch.dtype) -> None:
    word, width = WORDS[dtype]
    if width == 16:
        tensor = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(word).view(dtype)
        for part in tensor.split(2**13):
            assert_same(measure(part.clone()), expected(part))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fill", [0.0, -0.0, 1.0, -2.5, math.inf, -math.inf, math.nan])
def test_constant_tensors(dtype: torch.dtype, fill: float) -> None:
    tensor = torch.full((20_000,), fill, dtype=dtype)
    assert_same(measure(tensor), expected(tensor))


def test_a_mask_of_minus_infinity() -> None:
    tensor = torch.full((64, 512), -math.inf).triu(1)
    assert_same(measure(tensor), expected(tensor))
    assert measure(tensor).neginf == sum(511 - row for row in range(64))


@st.composite
def strided(draw: st.DrawFn) -> torch.Tensor:
    """A view of a dense tensor: permuted, sliced, expanded."""
    shape = draw(st.lists(st.integers(1, 5), min_size=0, max_size=4))
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    tensor = tensor.to(draw(st.sampled_from([*DTYPES, torch.complex64])))
    if draw(st.booleans()):
        tensor = tensor.permute(draw(st.permutations(range(tensor.dim()))))
    for dim in range(tensor.dim()):
        if draw(st.integers(0, 3)) == 0:
            start, step = draw(st.integers(0, tensor.shape[dim] - 1)), draw(st.integers(1, 3))
            tensor = tensor[(slice(None),) * dim + (slice(start, None, step),)]
    if draw(st.booleans()):
        at = draw(st.integers(0, tensor.dim()))
        tensor = tensor.unsqueeze(at).expand(*tensor.shape[:at], draw(st.integers(1, 3)), *tensor.shape[at:])
    return tensor


@settings(deadline=None)
@given(strided())
def test_views_are_measured_where_they_lie(tensor: torch.Tensor) -> None:
    dense = tensor.contiguous()
    dense = torch.view_as_real(dense) if dense.is_complex() else dense
    assert_same(measure(tensor), expected(dense))


@settings(deadline=None)
@given(strided(), st.integers(1, 40))
def test_the_sample_is_in_logical_order(tensor: torch.Tensor, size: int) -> None:
    dense = torch.view_as_real(tensor.contiguous()) if tensor.is_complex() else tensor.contiguous()
    positions = sample_positions(dense.numel(), size)
    assert np.array_equal(sample(tensor, size), dense.reshape(-1)[positions].double().numpy())


def test_large_permuted_and_expanded_tensors() -> None:
    base = torch.randn(40, 50, 60)
    assert_same(measure(base.permute(2, 0, 1)), expected(base))
    found = measure(base[:, :1].expand(40, 50, 60))
    wanted = expected(base[:, :1])
    assert found.count == base.numel()
    assert found.sampled == 50 * wanted.sampled
    assert (found.min, found.max, found.rms) == (wanted.min, wanted.max, pytest.approx(wanted.rms))


def test_every_channel_is_in_the_sample() -> None:
    for shape in ((8, 768, 32, 32), (4, 256, 512), (2, 12, 256, 256), (30, 30, 1001)):
        index = np.unravel_index(sample_positions(math.prod(shape)), shape)
        assert len(index[0]) == 2048
        for dim, size in enumerate(shape):
            covered = len(np.unique(index[dim]))
            assert covered == size


def test_lazy_negation_and_conjugation() -> None:
    tensor = torch.view_as_real(torch.randn(5, dtype=torch.complex64))
    imaginary = torch.view_as_complex(tensor).conj().imag
    assert imaginary.is_neg()
    assert_same(measure(imaginary), expected(imaginary.resolve_neg()))
    assert np.array_equal(sample(imaginary), imaginary.resolve_neg().double().numpy())


def test_eight_bit_floats() -> None:
    tensor = torch.arange(256, dtype=torch.uint8).view(torch.float8_e5m2)
    assert_same(measure(tensor), expected(tensor))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(3),
        torch.tensor([True]),
        torch.empty(0),
        torch.empty(3, device="meta"),
        torch.eye(3).to_sparse(),
        torch.nn.parameter.UninitializedParameter(),
    ],
    ids=lambda t: f"{t.dtype}-{t.layout}",
)
def test_what_is_not_measured(tensor: torch.Tensor) -> None:
    assert measure(tensor) is None
    assert sample(tensor) is None


def test_tensors_that_require_gradients_and_parameters() -> None:
    parameter = torch.nn.Parameter(torch.randn(4, 4))
    assert_same(measure(parameter), expected(parameter.detach()))
    assert_same(measure(parameter[:, :3]), expected(parameter[:, :3].detach()))
    assert sample(parameter[:, :3]).shape == (12,)


class Everything(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.complex64, torch.float8_e4m3fn])
def test_no_dispatch_mode_sees_the_measuring(dtype: torch.dtype) -> None:
    whole = torch.randn(6, 6).to(dtype)
    views = [whole, whole.t(), whole[:, 1:4], whole[:1].expand(4, 6)]
    with Everything() as mode:
        for view in views:
            measure(view)
            sample(view)
    assert mode.seen == []


def test_without_numba_the_reference_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.randn(300, dtype=torch.bfloat16)
    wanted = measure(tensor)
    monkeypatch.setattr(stats, "_kernels", dict)
    assert_same(measure(tensor), wanted)


def test_flushing_of_subnormals_does_not_hide_them() -> None:
    tensor = torch.tensor([1e-40, -3e-45, 0.0, 1.0])
    wanted = expected(tensor)
    assert torch.set_flush_denormal(True)
    try:
        found = measure(tensor)
    finally:
        torch.set_flush_denormal(False)
    assert_same(found, wanted)


def test_resolve_passes_finished_stats_on() -> None:
    finished = Stats(count=1)
    assert resolve(finished) is finished
    assert resolve(None) is None


def test_the_energy_of_what_the_sample_misses() -> None:
    tensor = torch.full((1 << 22,), 2.0**-30)
    tensor[1] = 1.0
    found = resolve(measure(tensor))
    assert found is not None and 0 not in found.histogram  # it was missed
    assert found.norm == pytest.approx(1.0)
    assert found.energy_below(2.0**-20) < 1e-5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@settings(deadline=None)
@given(patterns())
def test_cuda_measures_as_the_reference_does(tensor: torch.Tensor) -> None:
    assert_same(resolve(measure(tensor.cuda())), expected(tensor))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 4097, 16_385, 5_000_011])
def test_cuda_sizes(dtype: torch.dtype, size: int) -> None:
    tensor = torch.randn(size, dtype=torch.float64).mul(1e-3).to(dtype)
    tensor[:: 1 + size // 3] = -math.inf
    pending = measure(tensor.cuda())
    assert isinstance(pending, stats.Pending)
    assert_same(pending.resolve(), expected(tensor))


def test_kernels_compile_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.caching import CompileResultCacheImpl

    from stabdiag.recording.stats import cpu as stats_kernels

    monkeypatch.setattr(CompileResultCacheImpl, "_locator_classes", [])
    kernel = stats_kernels.compiled("int64(int64)", lambda x: x + 1)
    assert kernel(1) == 2
    assert not kernel.stats.cache_path
