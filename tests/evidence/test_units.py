"""Bounds and samples that claims about units stand on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stabdiag.evidence.measure.units import ROWS, relu_facts, rows_of
from stabdiag.evidence.signal.units import effective_samples, rarely, wilson_lower


@pytest.mark.parametrize(("successes", "trials", "lower"), [(64, 64, 0.9594), (0, 64, 0.0), (32, 64, 0.3998), (5, 10, 0.2693)])
def test_wilson_lower_bound(successes: int, trials: int, lower: float) -> None:
    assert wilson_lower(successes, trials) == pytest.approx(lower, abs=2e-3)


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_lower_bound_is_below_the_estimate_and_tightens(trials: int, share: float) -> None:
    few, many = wilson_lower(share * trials, trials), wilson_lower(share * trials * 10, trials * 10)
    assert 0.0 <= few <= many + 1e-12 <= share + 1e-9


def test_nothing_is_claimed_without_trials() -> None:
    assert wilson_lower(0, 0) == 0.0
    assert rarely(0, 0.05) == pytest.approx(0.05)


@given(st.integers(0, 400), st.floats(0.01, 0.5))
def test_silence_is_surer_the_longer_it_lasts(trials: int, probability: float) -> None:
    assert 0.0 < rarely(trials, probability) <= rarely(trials + 1, probability) <= 1.0


def test_the_posterior_agrees_with_drawing_rates_and_samples() -> None:
    rates = torch.rand(400_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = (1 - rates) ** 32  # of a rate, given that nothing fired
    assert float(weights[rates < 0.05].sum() / weights.sum()) == pytest.approx(rarely(32, 0.05), abs=0.01)


def test_positions_count_less_than_samples() -> None:
    assert effective_samples(64, 64) == 64
    assert effective_samples(64 * 100, 64) == 640
    assert effective_samples(16, 64) == 16
    assert effective_samples(64 * 5, 64, calls=5) == 320


@pytest.mark.parametrize(
    "shape,dim", [((64, 16, 32, 32), 1), ((8, 128, 256), 2), ((9000, 5), 1), ((64, 26), 1), ((3, 7, 7), 0)]
)
def test_rows_are_units_last_and_few(shape: tuple[int, ...], dim: int) -> None:
    x = torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
    rows = rows_of(x, dim, ROWS)
    assert rows.shape[1] == shape[dim]
    assert 1 <= rows.shape[0] <= ROWS
    flat = {tuple(r) for r in x.movedim(dim, -1).reshape(-1, shape[dim]).tolist()}
    assert all(tuple(r) in flat for r in rows.tolist())


@given(st.integers(0, 1000))
def test_a_unit_that_fires_once_anywhere_is_not_dead(seed: int) -> None:
    x = -torch.rand(50, 8, 20, 20, generator=torch.Generator().manual_seed(seed)) - 0.1
    where = torch.randint(0, 50 * 400, (1,), generator=torch.Generator().manual_seed(seed)).item()
    x[where // 400, 3, where % 400 // 20, where % 20] = 1.0
    facts = relu_facts([x], x.clamp(min=0), 1, {})
    assert facts is not None
    assert facts["fired"].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
