"""How plausible a state is: what was moved, how far, and in which unit."""

from __future__ import annotations

from typing import Any

import pytest

from stabdiag.evidence.expressions.plausible import near, plausibility


def state(group: str = "data", how: str = "scale", moved: float = 1.0, largest: float = 1000.0) -> dict[str, Any]:
    return {"group": group, "how": how, "moved": moved, "largest": largest}


@pytest.mark.parametrize(
    ("broken", "plausible", "close"),
    [
        (state(how="observed"), True, True),
        (state(moved=10.0), True, True),
        (state(moved=10.1), True, False),
        (state(moved=30.0), True, False),
        (state(moved=31.0), False, False),
        (state(moved=300.0, largest=20.0), True, False),
        (state(moved=300.0, largest=20.1), False, False),
        (state(how="descent", moved=5.0), True, True),
        (state(how="zero", moved=1.0, largest=0.0), False, False),
        (state(how="duplicate", moved=1.0), False, False),
        (state("parameters", moved=0.01), True, True),
        (state("parameters", moved=0.011), True, False),
        (state("parameters", moved=1.5), True, False),
        (state("parameters", moved=1.6), False, False),
    ],
)
def test_regions(broken: dict[str, Any], plausible: bool, close: bool) -> None:
    assert (plausibility(broken) <= 1) is plausible
    assert near(broken, 10.0) is close


def test_what_happens_comes_first_and_special_shapes_last() -> None:
    order = [state(how="observed"), state(moved=3.0), state("parameters", moved=1.0), state(moved=40.0), state(how="zero")]
    assert sorted(order, key=plausibility) == order
