"""Robust lines over sampled steps, and when a limit is met."""

from __future__ import annotations

import random

import pytest

from stabdiag.live.history import History, Step, limit
from stabdiag.live.trends import Trends, theil_sen


def test_a_line_through_points_with_outliers() -> None:
    x = list(range(20))
    y = [3.0 - 0.5 * k for k in x]
    y[4] = y[11] = 90.0
    line = theil_sen(x, y)
    assert line is not None
    assert line.slope == pytest.approx(-0.5, abs=0.05)
    assert line.low <= line.slope <= line.high
    assert line.high < 0


def test_fewer_than_eight_points_say_nothing() -> None:
    assert theil_sen(range(7), range(7)) is None
    assert theil_sen([1.0] * 9, range(9)) is None


def trend(slope: float, points: int = 12, noise: float = 0.05) -> list[str]:
    draws = random.Random(0)
    trends = Trends()
    for k in range(points):
        trends.add(200 * k, {("headroom", "blocks.1"): 8.0 + slope * 200 * k + draws.gauss(0, noise)})
    return [finding.message for finding in trends.forecasts("amp-float16", {})]


def test_headroom_that_shrinks_is_forecast_with_its_interval() -> None:
    (message,) = trend(-0.8e-3)
    assert message.startswith("`blocks.1` loses 0.8 bits per 1,000 steps: float16 ends between step ")
    first, last = (int(word.replace(",", "")) for word in message.split("step ")[1].split(" and "))
    assert first <= 10_000 <= last


def test_no_forecast_from_few_points_noise_or_far_away() -> None:
    assert trend(-0.8e-3, points=7) == []
    assert trend(0.0, noise=0.5) == []
    assert trend(+0.8e-3) == []
    assert trend(-1e-5, noise=0.001) == [], "the limit lies hundreds of times beyond what was seen"


def test_limit_is_median_and_deviations() -> None:
    assert limit([1.0] * 29) is None
    assert limit([1.0] * 30) == pytest.approx(1.08), "a deviation of 0 counts as 1 % of the median"
    assert limit([float(k) for k in range(31)]) == pytest.approx(15 + 8 * 8)
    assert limit([float("nan")] * 40) is None


def history(skipped: list[bool], scale: float) -> History:
    made = History()
    for k, left_out in enumerate(skipped):
        made.add(Step(k, 1.0, 1.0, 0.1, scale, skipped=left_out))
    return made


def test_collapse_of_a_scale() -> None:
    assert history([True], 0.5).collapsed()
    assert not history([True] * 12, 16.0).collapsed(), "at the start it finds its level"
    assert history([False] + [True, False] * 20 + [True], 16.0).collapsed()
    assert not history([False] * 40 + [True], 16.0).collapsed()


def test_unusual_updates() -> None:
    made = history([False] * 40, 1.0)
    assert not made.unusual_update(0.1, 1.0)
    assert made.unusual_update(1.0, 1.0)
    assert made.unusual_update(0.1, 5.0)
    assert history([False] * 3, 1.0).unusual_update(0.1, 1.0), "nothing is known yet"
