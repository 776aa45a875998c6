"""What the kernels of `stabdiag.recording.stats.tensor` compute, in plain torch: the definition they are tested against.

Also what runs where there is no kernel: without numba, on devices other than CPU and CUDA, and for FP8.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stabdiag.trace import Stats


def measure_flat(flat: Tensor, stride: int) -> Stats:
    """Measure a one-dimensional floating-point tensor; sum, sum_sq and histogram over every `stride`-th element."""
    wide = flat.detach().to(torch.float64)
    infinite = torch.isinf(wide)
    nan = torch.isnan(wide)
    finite = wide[~(nan | infinite)]
    sample = wide[::stride]
    sample = sample[torch.isfinite(sample)]
    sizes = sample[sample != 0].abs()
    exponents, counts = torch.unique(torch.frexp(sizes).exponent - 1, return_counts=True)
    return Stats(
        count=flat.numel(),
        nan=int(nan.sum()),
        posinf=int((infinite & (wide > 0)).sum()),
        neginf=int((infinite & (wide < 0)).sum()),
        zeros=int((wide == 0).sum()),
        min=float(finite.min()) if finite.numel() else float("inf"),
        max=float(finite.max()) if finite.numel() else float("-inf"),
        max_abs=float(finite.abs().max()) if finite.numel() else 0.0,
        min_abs=float(sizes.min()) if sizes.numel() else float("inf"),
        sampled=sample.numel(),
        sum=float(sample.sum()),
        sum_sq=float(sample.square().sum()),
        histogram=dict(zip(exponents.tolist(), counts.tolist(), strict=True)),
    )
