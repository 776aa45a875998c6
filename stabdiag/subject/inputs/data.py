"""A batch from a file: --data batch.pt, .npz, .npy, .safetensors, .csv or .parquet."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn

from stabdiag.recording.torch_private import tree_leaves, tree_map_only
from stabdiag.subject.frames import one_line
from stabdiag.subject.subject import Inputs, SubjectError
from stabdiag.subject.weights import read_tensors

ROWS = 64
"""Samples per batch; a larger file gives more batches."""


def read_data(path: Path, model: nn.Module) -> tuple[Callable[[int], Inputs], int, str]:
    """The batches of a file, how many, and a note on what was taken.

    A dict whose keys are arguments of forward is passed by name, anything else by position. Positional tensors that forward has
    no room for are left out, or are the target of the loss where that is a single one. float64 is read as float32.

    Raises:
        SubjectError: kind "input".
    """
    content = _read(path)
    content = tree_map_only(torch.Tensor, lambda t: t.float() if t.dtype == torch.float64 else t, content)
    signature = inspect.signature(model.forward).parameters.values()
    names = [p.name for p in signature if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    open_ended = any(p.kind is p.VAR_POSITIONAL for p in signature)
    left: dict[str, Any] = {}
    if isinstance(content, dict) and set(content) & set(names):
        left = {key: value for key, value in content.items() if key not in names}
        whole = Inputs((), {key: value for key, value in content.items() if key in names})
        note = f", without {', '.join(left)}" if left else ""
    else:
        keys = [str(key) for key in content] if isinstance(content, dict) else []
        items = tuple(content.values()) if isinstance(content, dict) else content
        items = tuple(items) if isinstance(items, list | tuple) else (items,)
        kept = items if open_ended else items[: max(1, len(names))]
        if len(kept) == len(names) > 1 and all(p.default is not p.empty for p in list(signature)[1:]):
            kept = kept[:1]
        left = dict(zip(keys[len(kept) :] or map(str, range(len(kept), len(items))), items[len(kept) :], strict=True))
        note = f", the first {len(kept)} of {len(items)} tensors" if left else ""
        whole = Inputs(kept, {})
    targets = {key: value for key, value in left.items() if isinstance(value, torch.Tensor) and value.dim()}
    if len(targets) == 1:
        name, whole.target = next(iter(targets.items()))
        note += f"; {name if not name.isdigit() else 'the other'} is the target"
    tensors = [leaf for leaf in tree_leaves((whole.args, whole.kwargs)) if isinstance(leaf, torch.Tensor)]
    if not tensors:
        raise SubjectError(f"--data {path} holds no tensor; expected a batch of tensors or arrays.", "input")
    count = tensors[0].shape[0] if tensors[0].dim() else 1
    same = all(t.dim() and t.shape[0] == count for t in tensors)
    batches = max(1, count // ROWS) if same else 1

    def batch(k: int) -> Inputs:
        if (batches == 1 and count <= ROWS) or not same:
            return whole
        at = (k % batches) * ROWS
        return Inputs(*tree_map_only(torch.Tensor, lambda t: t[at : at + ROWS], (whole.args, whole.kwargs, whole.target)))

    return batch, batches, note


def _read(path: Path) -> Any:
    if path.suffix in _TABLES:
        return _table(path)
    if path.suffix not in (".npz", ".npy"):
        return read_tensors(path, "--data")
    if not path.is_file():
        raise SubjectError(f"--data {path} does not exist; expected a file with a batch.", "input")
    try:
        loaded = numpy.load(path, allow_pickle=False)
        if path.suffix == ".npy":
            return torch.from_numpy(loaded)
        return {key: torch.from_numpy(loaded[key]) for key in loaded.files}
    except Exception as error:
        raise SubjectError(f"--data {path} cannot be read as arrays ({one_line(error, 120)}).", "input") from error


_TABLES = (".csv", ".parquet")


def _table(path: Path) -> tuple[torch.Tensor, ...]:
    """The columns of a table that are numbers, side by side; the last one is the target."""
    import pandas

    if not path.is_file():
        raise SubjectError(f"--data {path} does not exist; expected a table with a row per sample.", "input")
    try:
        frame = pandas.read_csv(path) if path.suffix == ".csv" else pandas.read_parquet(path)
    except Exception as error:
        raise SubjectError(f"--data {path} cannot be read as a table ({one_line(error, 120)}).", "input") from error
    numbers = frame.select_dtypes("number")
    if numbers.shape[1] < 2 or not len(numbers):
        raise SubjectError(
            f"--data {path} has {numbers.shape[1]} columns of numbers and {len(numbers)} rows; expected features and, last, a "
            "target.",
            "input",
        )
    features, target = numbers.iloc[:, :-1].to_numpy("float32"), numbers.iloc[:, -1].to_numpy()
    whole = numpy.issubdtype(target.dtype, numpy.integer)
    return torch.from_numpy(features.copy()), torch.from_numpy(target.astype("int64" if whole else "float32"))
