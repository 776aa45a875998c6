"""Which device was asked for, and whether this machine has it."""

from __future__ import annotations

import torch

from stabdiag.subject.subject import SubjectError


def resolve(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:1` as a device; `auto` is the first GPU where there is one.

    Raises:
        SubjectError: kind "usage", for an unknown name or a device that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SubjectError(f"--device {name} is unknown; expected auto, cpu or cuda.", "usage") from error
    if device.type not in ("cpu", "cuda"):
        raise SubjectError(f"--device {name} is not supported; expected auto, cpu or cuda.", "usage")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            seen = "sees no CUDA device" if not count else f"sees only {count} CUDA device(s)"
            raise SubjectError(f"--device {name} was asked for, but this PyTorch {seen}; use --device cpu or auto.", "usage")
    return device
