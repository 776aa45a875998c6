"""What is known about ops by name."""

from __future__ import annotations

DISCRETE = frozenset(
    [
        "topk",
        "argmax",
        "argmin",
        "sort",
        "argsort",
        "ge",
        "gt",
        "le",
        "lt",
        "eq",
        "ne",
        "bucketize",
        "searchsorted",
        "multinomial",
    ]
)
"""Ops that choose: their integer results differ entirely or not at all, and end a comparison of precisions."""
