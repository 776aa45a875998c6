"""Weights from a file: state_dict (torch.save) or safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from stabdiag.subject.frames import one_line
from stabdiag.subject.subject import SubjectError


def read_tensors(path: Path, option: str) -> Any:
    """Read a .pt, .pth, .bin, .ckpt or .safetensors file, tensors only.

    Raises:
        SubjectError: kind "input", when it is missing or cannot be read.
    """
    if not path.is_file():
        raise SubjectError(f"{option} {path} does not exist; expected a file with tensors.", "input")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(str(path))
        return torch.load(path, map_location="cpu", weights_only=True)
    except ModuleNotFoundError as error:
        raise SubjectError(
            f"{option} {path} needs the package safetensors; install it in this environment.", "input"
        ) from error
    except Exception as error:
        raise SubjectError(
            f"{option} {path} cannot be read as tensors ({one_line(error, 120)}); expected torch.save of tensors, or "
            "safetensors.",
            "input",
        ) from error


def load_weights(model: nn.Module, path: Path) -> None:
    """Put the weights of a file into the model; wrappers of training frameworks and compiled models are unwrapped.

    Raises:
        SubjectError: kind "input", when names or shapes do not fit.
    """
    state = read_tensors(path, "--weights")
    while isinstance(state, dict) and not any(isinstance(value, torch.Tensor) for value in state.values()):
        inner = [v for v in state.values() if isinstance(v, dict) and any(isinstance(t, torch.Tensor) for t in v.values())]
        if len(inner) != 1:
            inner = [state[key] for key in ("state_dict", "model_state_dict", "model") if isinstance(state.get(key), dict)][:1]
        if not inner:
            raise SubjectError(f"--weights {path} holds no state_dict; expected parameter names and tensors.", "input")
        state = inner[0]
    if not isinstance(state, dict):
        raise SubjectError(f"--weights {path} holds {type(state).__name__}; expected a state_dict.", "input")
    wanted = set(model.state_dict())
    for prefix in ("module.", "_orig_mod.", "model."):
        if not wanted & set(state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise SubjectError(
            f"--weights {path} does not fit the model: {(lines or [str(error)])[0].rstrip('.')}; pass the arguments it was "
            "trained with by --arg.",
            "input",
        ) from error
    if missing or unexpected:
        example = (missing or unexpected)[0]
        raise SubjectError(
            f"--weights {path} does not fit the model: {len(missing)} tensors missing, {len(unexpected)} unknown, for example "
            f"{example}; pass the arguments it was trained with by --arg.",
            "input",
        )


def stored(model: nn.Module) -> list[str]:
    """The formats that trained weights are kept in as the author built them, by torch's names."""
    return sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.requires_grad})
