"""Reading a model's output: its tensors, whether one is a loss, and what autograd says of where they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

_VIEWS = ("View", "Reshape", "Transpose", "Permute", "Squeeze", "Unsqueeze", "Slice", "Select", "Clone", "Alias", "Expand",
          "ToCopy", "Split", "Chunk", "TBackward", "Index", "Unbind", "Stack")  # fmt: skip


def leaves(output: Any, path: str = "") -> list[tuple[str, torch.Tensor]]:
    """All tensors of a nested output (dicts, dataclasses, sequences, distributions) with paths (`logits`, `0`, `1.mean`)."""
    below: list[tuple[str, Any]] = []
    if isinstance(output, torch.Tensor):
        return [(path, output)]
    if isinstance(output, Mapping):
        below = [(str(key), value) for key, value in output.items()]
    elif isinstance(output, torch.distributions.Distribution):
        below = [("logits", output.logits)] if hasattr(output, "logits") else [("mean", output.mean), ("stddev", output.stddev)]
    elif hasattr(output, "_fields"):
        below = list(zip(output._fields, output, strict=True))
    elif isinstance(output, list | tuple):
        below = [(str(index), value) for index, value in enumerate(output)]
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        below = [(field.name, getattr(output, field.name)) for field in dataclasses.fields(output)]
    elif hasattr(output, "__dict__") and not isinstance(output, nn.Module | type):
        below = list(vars(output).items())
    return [leaf for key, value in below for leaf in leaves(value, f"{path}.{key}".lstrip("."))]


def own_loss(output: Any) -> list[str]:
    """Paths of the scalar losses in an output: `loss`, else scalars that depend on all that the rest of the output depends on.

    The second condition tells `(logits, loss)` from `(output, balancing_penalty)`.
    """
    found = [(path, tensor) for path, tensor in leaves(output) if tensor.is_floating_point() and tensor.requires_grad]
    scalars = [(path, tensor) for path, tensor in found if tensor.numel() == 1 and tensor.dim() <= 1]
    named = [path for path, _ in scalars if path.rpartition(".")[2] in ("loss", "total_loss")]
    if named or not scalars:
        return named[:1]
    lossy = [(path, tensor) for path, tensor in scalars if "loss" in path]
    if not (lossy or len(scalars) == len(found) or isinstance(output, tuple | list)):
        return []
    wanted = set().union(*(_reached(tensor) for _, tensor in found))
    taken = lossy or (scalars if len(scalars) == len(found) else scalars[:1])
    return [path for path, _ in taken] if wanted <= set().union(*(_reached(tensor) for _, tensor in taken)) else []


def logits_of(output: Any) -> torch.Tensor | None:
    """The output's logits: what is named so, else the first float tensor with more than one dimension."""
    found = [(p, t) for p, t in leaves(output) if t.is_floating_point() and t.dim() >= 2]
    named = [tensor for path, tensor in found if "logits" in path]
    return next(iter(named or [tensor for _, tensor in found]), None)


def parts_of(output: Any, model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """The tensors to differentiate: the first, and each further one that reaches parameters the others do not."""
    found = [(p, t) for p, t in leaves(output) if (t.is_floating_point() or t.is_complex()) and t.requires_grad and t.numel()]
    found.sort(key=lambda item: "logits" not in item[0])
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    reached: set[int] = set()
    parts = []
    for path, tensor in found:
        new = (_reached(tensor) & wanted) - reached
        if new:
            parts.append((path, tensor))
            reached |= new
    return parts


def _reached(tensor: torch.Tensor) -> set[int]:
    """Identities of the leaves that a tensor depends on."""
    seen, todo, found = set(), [tensor.grad_fn], set()
    if tensor.grad_fn is None:
        return {id(tensor)}
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.add(id(variable))
        todo += [following for following, _ in node.next_functions]
    return found


def made_by(tensor: torch.Tensor) -> str:
    """Name of the autograd node behind a tensor, views and copies passed over."""
    node = tensor.grad_fn
    while node is not None and type(node).__name__.removeprefix("Unsafe").startswith(_VIEWS) and node.next_functions:
        following = node.next_functions[0][0]
        if following is None:
            break
        node = following
    return type(node).__name__


def normalised(tensor: torch.Tensor, dim: int) -> str:
    """ "log" or "probabilities" when the classes add up to one, "" otherwise."""
    with torch.no_grad():
        value = tensor.detach().double()
        if bool((value >= 0).all()) and bool(((value.sum(dim) - 1).abs() < 1e-3).all()):
            return "probabilities"
        if bool((value <= 1e-6).all()) and bool(((value.exp().sum(dim) - 1).abs() < 1e-3).all()):
            return "log"
    return ""


def shown(path: str) -> str:
    """`output`, `output.logits`, `output[1]`."""
    return "output" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path.split(".") if part)
