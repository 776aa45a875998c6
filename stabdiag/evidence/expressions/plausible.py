"""How plausible a state is in which an expression breaks.

Three regions, by what was moved (`stabdiag/probe/states.py` has the units):

- near: what is observed on other samples, or a few optimizer steps bring: `within` standard deviations of data, 10 steps of
  Adam for parameters;
- plausible: what training can move: values of magnitude 20 are nothing unusual once a model is trained (measured in
  `benchmarks/detection/`), 30 standard deviations of what is larger, 1,500 steps of Adam for a parameter;
- beyond: the pattern is all that speaks against the expression.
"""

from __future__ import annotations

from math import inf
from typing import Any

REACHED = 20.0
"""Logits and exponents of this magnitude are nothing unusual once a model is trained; measured in `benchmarks/detection/`."""

FAR = 30.0
"""Standard deviations."""

FEW_STEPS, MANY_STEPS = 0.01, 1.5
"""What 10 and 1,500 steps of Adam at its default rate move a weight by."""

DEGENERATE = ("zero", "constant")
SPECIAL = (*DEGENERATE, "duplicate", "aligned", "empty")


def plausibility(broken: dict[str, Any]) -> float:
    """0 where it happens, at most 1 within what training can move, above 1 beyond; special shapes of data come last."""
    if broken["how"] == "observed":
        return 0.0
    if broken["group"] == "parameters":
        return float(broken["moved"] / MANY_STEPS)
    reached = min(broken["moved"] / FAR, broken["largest"] / REACHED if broken["largest"] else inf)
    return 2.0 + reached if broken["how"] in SPECIAL else float(reached)


def near(broken: dict[str, Any], within: float) -> bool:
    """Whether a state is within what other samples or a few optimizer steps bring; special shapes are not."""
    if broken["how"] == "observed":
        return True
    if broken["group"] == "parameters":
        return bool(broken["moved"] <= FEW_STEPS)
    return broken["how"] not in SPECIAL and bool(broken["moved"] <= within)
