"""What the call that refused an input tells: sizes it got and sizes it wants."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import torch

from stabdiag.subject.inputs.specification import SAMPLES
from stabdiag.subject.inputs.trial import Trial


def distance(trial: Trial) -> float:
    """How far the refusing call was from being satisfied: |log(have / want)| of its best mismatch, 0 when unknown."""
    pairs = [(h, w) for h, w in from_shapes(trial) if h > 0 and w > 0]
    return min((abs(math.log(have / want)) for have, want in pairs), default=0.0)


def from_message(said: str) -> Iterator[tuple[int, int]]:
    """Every pair of different numbers in a message, as (size it got, size it wants)."""
    numbers = [int(n) for n in re.findall(r"(?<![\w.])\d{1,7}(?![\w.]*\w*\.)", said)][:12]
    for have in numbers:
        for want in numbers:
            if have != want and want > 1:
                yield have, want


def from_shapes(trial: Trial) -> Iterator[tuple[int, int]]:
    """(size it got, size it wants) from the shapes of the refusing call's arguments."""
    tensors = [a for a in trial.arguments if isinstance(a, torch.Tensor)]
    tensors += [a for a in trial.keywords.values() if isinstance(a, torch.Tensor)]
    listed = [a for a in trial.arguments if isinstance(a, list | tuple) and a and isinstance(a[0], torch.Tensor)]
    name = trial.function.strip("_")
    if name in ("linear", "addmm", "bilinear") and len(tensors) >= 2 and tensors[0].dim() and tensors[1].dim() > 1:
        yield tensors[0].shape[-1], tensors[1].shape[-1]
    elif name.startswith("conv") and len(tensors) >= 2 and tensors[0].dim() >= 2:
        groups = next((a for a in reversed(trial.arguments) if isinstance(a, int)), trial.keywords.get("groups", 1))
        channels = tensors[1].shape[0] if "transpose" in name else tensors[1].shape[1] * max(1, groups)
        yield tensors[0].shape[1], channels
        yield tensors[0].shape[-1], channels
    elif name in ("matmul", "mm", "bmm", "einsum", "rmatmul", "mv") and len(tensors) >= 2:
        if tensors[1].dim() >= 2 and tensors[0].dim() >= 1:
            yield tensors[0].shape[-1], tensors[1].shape[-2]
            yield tensors[1].shape[-2], tensors[0].shape[-1]
    elif name in ("view", "reshape", "unflatten") and tensors:
        sizes = trial.arguments[1:] if not isinstance(trial.arguments[1], list | tuple) else trial.arguments[1]
        known = [n for n in sizes if isinstance(n, int) and n > 0]
        total = tensors[0].numel()
        if known and -1 in sizes:
            for samples in (SAMPLES, 1):
                yield total // samples, math.prod(known) // (SAMPLES if SAMPLES in known and samples == SAMPLES else 1)
        elif known:
            yield total, math.prod(known)
    elif name in ("layer_norm", "rms_norm") and tensors and len(trial.arguments) > 1:
        yield tensors[0].shape[-1], list(trial.arguments[1])[-1]
    elif name in ("batch_norm", "instance_norm") and len(tensors) > 1 and tensors[0].dim() > 1:
        yield tensors[0].shape[1], tensors[1].shape[0]
    elif name in ("cat", "concat", "concatenate", "stack") and listed:
        first, *others = listed[0]
        for other in others:
            for a, b in zip(first.shape, other.shape, strict=False):
                if a != b:
                    yield a, b
                    yield b, a
    elif len(tensors) >= 2:
        for a, b in zip(reversed(tensors[0].shape), reversed(tensors[1].shape), strict=False):
            if a != b and 1 not in (a, b):
                yield a, b
                yield b, a
