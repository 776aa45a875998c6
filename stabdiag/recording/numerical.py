"""Exceptions that are about numbers: a matrix that cannot be factorised, a probability outside [0, 1], a negative scale.

What such an exception means does not depend on its text: it is of a type that stands for it (`LinAlgError`, `ArithmeticError`),
it comes from the validation of a `torch.distributions` argument, or an op raised whose operand is not what the op demands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from stabdiag.recording.torch_private import undispatched

LARGEST = 1024  # rows of a matrix whose eigenvalues are worked out for the report
SYMMETRIC = 1e-4  # relative asymmetry that rounding leaves of a symmetric matrix
_DISTRIBUTIONS = str(Path(torch.__file__).parent / "distributions") + "/"


def _probabilities(values: Tensor) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


def _weights(values: Tensor) -> bool:
    return bool(((values >= 0) & values.isfinite()).all()) and bool((values.sum(-1) > 0).all())


def _not_negative(values: Tensor) -> bool:
    return bool((values >= 0).all())


# Which argument of an op must be what, and that in words. NaN violates all of them.
_DEMANDS: dict[str, tuple[int, Callable[[Tensor], bool], str]] = {
    "multinomial": (0, _weights, "non-negative finite weights with a positive sum per row"),
    "bernoulli": (0, _probabilities, "probabilities between 0 and 1"),
    "binary_cross_entropy": (0, _probabilities, "probabilities between 0 and 1"),
    "poisson": (0, _not_negative, "rates of at least 0"),
    "normal": (-1, _not_negative, "standard deviations of at least 0"),
}

CHECKED = frozenset(_DEMANDS)
"""Ops that refuse values."""
LinAlgError: type[Exception] = torch.linalg.LinAlgError  # type: ignore[attr-defined]


def about_numbers(error: Exception, name: str = "", tensors: Sequence[Any] = ()) -> dict[str, Any] | None:
    """What an exception was about, if it is about numbers, else None.

    Args:
        error: as caught, with its traceback.
        name: of the function or op that raised, when known; tensors: its tensor arguments.

    Returns:
        demands: what was demanded, in words, "" when only the exception says it; and of the operand, where it is at hand: min,
        max, nonfinite (elements); of matrices also size, smallest and largest (eigenvalues of symmetric matrices, singular
        values of others; of the worst of a batch), symmetric.
    """
    given = [t for t in tensors if isinstance(t, Tensor) and t.is_floating_point()]
    position, holds, words = _DEMANDS.get(name.removesuffix("_"), (0, None, ""))
    if isinstance(error, LinAlgError):
        return {"demands": "", **(_matrix(given[0]) if given else {})}
    if holds is not None and given:
        with undispatched(), torch.no_grad():
            operand = given[position].detach()
            if not holds(operand):
                return {"demands": words, **_range(operand)}
    if isinstance(error, ArithmeticError):
        return {"demands": ""}
    return _validation(error)


def _validation(error: Exception) -> dict[str, Any] | None:
    """The argument that `torch.distributions` refused: read from the frame that did."""
    at: TracebackType | None = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is None or not isinstance(error, ValueError) or not at.tb_frame.f_code.co_filename.startswith(_DISTRIBUTIONS):
        return None
    local = at.tb_frame.f_locals
    value, valid = local.get("value"), local.get("valid")
    if not isinstance(value, Tensor) or not isinstance(valid, Tensor) or bool(valid.all()):
        return None
    name, constraint = local.get("param"), local.get("constraint")
    demands = f"`{name}` of {type(local.get('self')).__name__} to be {constraint}" if name else "values inside the support"
    with undispatched(), torch.no_grad():
        return {"demands": demands, **_range(value.detach())}


def _range(values: Tensor) -> dict[str, Any]:
    finite = values[values.isfinite()].double()
    found: dict[str, Any] = {"nonfinite": values.numel() - finite.numel()}
    return found | ({"min": float(finite.min()), "max": float(finite.max())} if finite.numel() else {})


def _matrix(given: Tensor) -> dict[str, Any]:
    """Size and eigenvalues (or singular values) of the worst matrix of a batch."""
    with undispatched(), torch.no_grad():
        matrix = given.detach().double().cpu()
        found = _range(matrix)
        if matrix.dim() < 2 or found["nonfinite"] or not 0 < max(matrix.shape[-2:]) <= LARGEST:
            return found
        square = matrix.shape[-1] == matrix.shape[-2]
        symmetric = square and float((matrix - matrix.mT).abs().max()) <= SYMMETRIC * float(matrix.abs().max())
        spectrum = torch.linalg.eigvalsh((matrix + matrix.mT) / 2) if symmetric else torch.linalg.svdvals(matrix)
        spectrum = spectrum.reshape(-1, spectrum.shape[-1])
        worst = spectrum[spectrum.min(dim=-1).values.argmin()]
        return found | {
            "size": matrix.shape[-1],
            "symmetric": symmetric,
            "smallest": float(worst.min()),
            "largest": float(worst.max()),
        }
