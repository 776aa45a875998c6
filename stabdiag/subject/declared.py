"""Training settings that a model file declares beside its model, so that a scan sees what the training script will do.

PRECISIONS = ("float32", "bfloat16")        what the model is trained in: scanned where the command line asks for nothing

def make_scaler():                          the loss scaler of its float16 training
    return torch.amp.GradScaler(init_scale=2.0**15)
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from stabdiag.errors import did_you_mean
from stabdiag.recording.torch_private import as_on_a_gpu
from stabdiag.subject.subject import SubjectError
from stabdiag.trace.formats import PRECISIONS


def training(module: ModuleType, shown: str) -> dict[str, Any]:
    """What a file declares: `precisions` (names) and `loss_scale` (a scaler's first), each only where it is declared.

    Args:
        module: the imported file.
        shown: its path, for messages.

    Raises:
        SubjectError: what is declared is no precision, or no scaler.
    """
    found: dict[str, Any] = {}
    if (names := getattr(module, "PRECISIONS", None)) is not None:
        found["precisions"] = _precisions(names, shown)
    if callable(make := getattr(module, "make_scaler", None)) and (scale := _scale(make, shown)) is not None:
        found["loss_scale"] = scale
    return found


def _precisions(names: Any, shown: str) -> list[str]:
    listed = list(names) if isinstance(names, (list, tuple)) else [names]
    wrong = next((name for name in listed if name not in PRECISIONS), None)
    if wrong is not None or not listed:
        hint = did_you_mean(wrong, PRECISIONS) if isinstance(wrong, str) else ""
        raise SubjectError(
            f"PRECISIONS in {shown} holds {wrong!r}{hint}; expected some of {', '.join(PRECISIONS)}"
            if listed
            else f"PRECISIONS in {shown} is empty; name what the model is trained in, or remove it"
        )
    return list(dict.fromkeys(listed))


def _scale(make: Any, shown: str) -> float | None:
    """The first scale of the scaler; None for no scaler, or a disabled one. A scaler for an absent GPU switches itself off,
    which says nothing about the training: it is made as if the GPU were there, and never used."""
    try:
        with as_on_a_gpu():
            scaler = make()
    except Exception as error:
        raise SubjectError(
            f"make_scaler() in {shown} failed ({type(error).__name__}: {error}); return a torch.amp.GradScaler, or remove it"
        ) from error
    if scaler is None:
        return None
    if not isinstance(scaler, torch.amp.GradScaler):
        raise SubjectError(f"make_scaler() in {shown} returned {type(scaler).__name__}; expected a torch.amp.GradScaler")
    return float(scaler.get_scale()) if scaler.is_enabled() else None
