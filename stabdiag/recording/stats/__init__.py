"""Tensor → Stats: one pass, on the CPU by numba, on CUDA by Triton, in plain torch as the reference both are tested against."""

from stabdiag.recording.stats.tensor import (
    ALONE,
    EVERYTHING,
    SAMPLE,
    Pending,
    coprime_stride,
    has_memory,
    launch,
    measure,
    measure_all,
    resolve,
    sample,
    sample_positions,
    warm_up,
)

__all__ = [
    "ALONE",
    "EVERYTHING",
    "SAMPLE",
    "Pending",
    "coprime_stride",
    "has_memory",
    "launch",
    "measure",
    "measure_all",
    "resolve",
    "sample",
    "sample_positions",
    "warm_up",
]
