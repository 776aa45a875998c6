"""The scalar that is differentiated: the author's loss, the model's own, or one that fits the output.

Targets come from a seeded CPU generator and are cast to the output's dtype: the same in every precision, classes balanced.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves

from stabdiag.subject.frames import one_line, place, user_traceback
from stabdiag.subject.specification import balanced
from stabdiag.subject.subject import Inputs, SubjectError

Loss = Callable[[Any, Inputs], torch.Tensor]

_NO_LOGITS = ("Tanh", "Sigmoid", "Relu", "LayerNorm", "RmsNorm", "BatchNorm", "GroupNorm", "Gelu", "Silu", "Elu", "Softplus",
              "Hardtanh", "Clamp", "Sin", "Cos", "Exp", "LinalgVectorNorm", "DivBackward0", "Threshold")  # fmt: skip
_LINEAR = ("Addmm", "Mm", "Bmm", "Baddbmm", "Linear", "Convolution", "AddBackward", "Softmax", "LogSoftmax", "CopySlices")
_VIEWS = ("View", "Reshape", "Transpose", "Permute", "Squeeze", "Unsqueeze", "Slice", "Select", "Clone", "Alias", "Expand",
          "ToCopy", "Split", "Chunk", "T", "Index", "Unbind", "Stack")  # fmt: skip


@dataclass(frozen=True)
class Objective:
    """The loss, its name for the report and the reason for it."""

    loss: Loss
    name: str
    why: str
    declared: bool = False


def declared(loss: Callable[[Any], torch.Tensor], output: Any) -> Objective:
    """The author's `loss(output)`.

    Raises:
        SubjectError: kind "forward", when it raises or is no scalar.
    """
    try:
        value = loss(output)
    except Exception as error:
        raise SubjectError(
            f"loss(output) raises {one_line(error)}{place(error)}; repair it for the output the model has.",
            "forward",
            user_traceback(error),
        ) from error
    if not isinstance(value, torch.Tensor):
        raise SubjectError(f"loss(output) returned {type(value).__name__}; expected a scalar tensor.", "forward")
    if value.numel() != 1:
        shape = "×".join(map(str, value.shape))
        raise SubjectError(f"loss(output) returned a tensor of {shape}; expected a scalar, for example its .mean().", "forward")
    if not value.requires_grad:
        raise SubjectError("loss(output) does not depend on the model's parameters; expected to differentiate it.", "forward")
    return Objective(lambda out, _: loss(out).reshape(()), "loss(output) of the file", "declared by the author", True)


def chosen(output: Any, inputs: Inputs, model: nn.Module) -> Objective:
    """An objective for this output, decided once from the float32 output and used in every precision.

    Raises:
        SubjectError: kind "forward", when nothing in the output depends on a parameter.
    """
    own = own_loss(output)
    if own:
        def of_model(out: Any, _: Inputs) -> torch.Tensor:
            found = dict(leaves(out))
            return torch.stack([found[path].reshape(()) for path in own]).sum() if len(own) > 1 else found[own[0]].reshape(())

        return Objective(of_model, f"the model's own loss, {' + '.join(map(_shown, own))}", "the output has a scalar loss")
    parts = _parts(output, model)
    if not parts:
        has_any = any(p.requires_grad for p in model.parameters())
        reason = "its output is no float tensor that depends on them" if has_any else "it has no parameter to train"
        raise SubjectError(
            f"{type(model).__name__} cannot be differentiated: {reason}; expected forward to return a tensor, or name one with loss(output).",
            "forward",
        )
    terms = [_term(path, tensor, inputs, index) for index, (path, tensor) in enumerate(parts)]

    def loss(out: Any, _: Inputs) -> torch.Tensor:
        found = dict(leaves(out))
        total = terms[0][0](found[parts[0][0]])
        for (path, _), (term, _, _) in zip(parts[1:], terms[1:], strict=True):
            total = total + term(found[path])
        return total

    names = " + ".join(name for _, name, _ in terms)
    return Objective(loss, names, "; ".join(dict.fromkeys(why for _, _, why in terms)))


def leaves(output: Any, path: str = "") -> list[tuple[str, torch.Tensor]]:
    """All tensors of a nested output with their paths (`logits`, `0`, `1.mean`); dicts, dataclasses, sequences, distributions."""
    below: list[tuple[str, Any]] = []
    if isinstance(output, torch.Tensor):
        return [(path, output)]
    if isinstance(output, Mapping):
        below = [(str(key), value) for key, value in output.items()]
    elif isinstance(output, torch.distributions.Distribution):
        below = (
            [("logits", output.logits)] if hasattr(output, "logits") else [("mean", output.mean), ("stddev", output.stddev)]
        )
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
    """Paths of the scalar losses in an output: `loss`, else a lone scalar, else all entries of a dict of scalars."""
    found = [(p, t) for p, t in leaves(output) if t.is_floating_point() and t.requires_grad]
    scalars = [path for path, tensor in found if tensor.numel() == 1 and tensor.dim() <= 1]
    named = [path for path in scalars if path.rpartition(".")[2] in ("loss", "total_loss")]
    if named:
        return named[:1]
    lossy = [path for path in scalars if "loss" in path]
    if scalars and (len(scalars) == len(found) or lossy):
        return lossy or scalars
    whole = [path for path, tensor in found if path in scalars and tensor.dim() == 0]
    return whole[:1] if isinstance(output, tuple | list) else []


def logits_of(output: Any) -> torch.Tensor | None:
    """The output's logits: what is named so, else the first float tensor with more than one dimension."""
    found = [(p, t) for p, t in leaves(output) if t.is_floating_point() and t.dim() >= 2]
    named = [tensor for path, tensor in found if "logits" in path]
    return (named or [tensor for _, tensor in found] or [None])[0]


def _parts(output: Any, model: nn.Module) -> list[tuple[str, torch.Tensor]]:
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


def _made_by(tensor: torch.Tensor) -> str:
    """Name of the autograd node behind a tensor, views and copies passed over."""
    node = tensor.grad_fn
    while node is not None and type(node).__name__.lstrip("_").removeprefix("Unsafe").startswith(_VIEWS) and node.next_functions:
        following = node.next_functions[0][0]
        if following is None or type(node).__name__.startswith("T") and "Tanh" in type(node).__name__:
            break
        node = following
    return type(node).__name__


def _shown(path: str) -> str:
    """`output`, `output.logits`, `output[1]`."""
    return "output" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path.split(".") if part)


def _term(path: str, tensor: torch.Tensor, inputs: Inputs, index: int) -> tuple[Callable[[torch.Tensor], torch.Tensor], str, str]:
    """The loss of one tensor, its name, and why."""
    at = f" of {_shown(path)}" if path else ""
    given = [leaf for leaf in tree_leaves((inputs.args, inputs.kwargs)) if isinstance(leaf, torch.Tensor)]
    shape, maker = tensor.shape, _made_by(tensor)
    classes, dim = 0, -1
    floats = [t for t in given if t.is_floating_point()]
    tokens = [t for t in given if not t.is_floating_point() and t.dim() >= 2]
    named = "logits" in path
    if (index and not named) or path.endswith(("mean", "stddev")):  # no telling what the columns of further heads are
        maker = "Tanh"
    same = any(t.shape == shape for t in floats)
    plain = named or not (same or any(word in maker for word in _NO_LOGITS))
    if tensor.dim() == 2 and shape[1] > 1 and plain:
        classes, dim, why = shape[1], 1, f"{shape[1]} class logits per sample"
    elif tensor.dim() == 3 and shape[-1] > 1 and plain and (
        named or (maker.startswith(_LINEAR) and any(t.shape[:2] == shape[:2] for t in tokens))
    ):
        classes, why = shape[-1], f"{shape[-1]} logits per token"
    elif tensor.dim() in (4, 5) and shape[1] > 1 and plain and "Convolution" in maker:
        if any(t.shape[2:] == shape[2:] and t.shape[1] != shape[1] for t in floats if t.dim() == tensor.dim()):
            classes, dim, why = shape[1], 1, f"{shape[1]} class logits per position"
    if classes and (kind := _normalised(tensor, dim)):
        return _of_probabilities(kind, dim, classes, index, at)
    if classes:
        def cross_entropy(out: torch.Tensor) -> torch.Tensor:
            flat = out.movedim(dim, -1).reshape(-1, classes)
            return F.cross_entropy(flat, _labels(len(flat), classes, index).to(out.device))

        return cross_entropy, f"cross-entropy over {classes} classes{at}", f"{why}; balanced seeded labels"
    scale = _scale(tensor)
    shown = "" if scale == 1 else f"/{scale:g}"

    def mean_square(out: torch.Tensor) -> torch.Tensor:
        out = torch.view_as_real(out) if out.is_complex() else out
        return F.mse_loss(out if scale == 1 else out / scale, _normal(tuple(out.shape), index).to(out.device, out.dtype))

    why = f"{_shown(path)} is no class logits" + (f", root mean square about {scale:g}" if scale != 1 else "")
    return mean_square, f"mean square of {_shown(path)}{shown} against a seeded normal target", why


def _of_probabilities(
    kind: str, dim: int, classes: int, index: int, at: str
) -> tuple[Callable[[torch.Tensor], torch.Tensor], str, str]:
    """Outputs that are normalised already: no logarithm is taken that the author did not write."""

    def likelihood(out: torch.Tensor) -> torch.Tensor:
        flat = out.movedim(dim, -1).reshape(-1, classes)
        return F.nll_loss(flat, _labels(len(flat), classes, index).to(out.device))

    def brier(out: torch.Tensor) -> torch.Tensor:
        flat = out.movedim(dim, -1).reshape(-1, classes)
        return F.mse_loss(flat, F.one_hot(_labels(len(flat), classes, index), classes).to(out.device, out.dtype))

    if kind == "log":
        return likelihood, f"negative log-likelihood over {classes} classes{at}", "the output is log-probabilities"
    return brier, f"Brier score over {classes} classes{at}", "the output is probabilities"


def _normalised(tensor: torch.Tensor, dim: int) -> str:
    """ "log" or "probabilities" when the classes add up to one, "" otherwise."""
    with torch.no_grad():
        value = tensor.detach().double()
        if bool((value >= 0).all()) and bool(((value.sum(dim) - 1).abs() < 1e-3).all()):
            return "probabilities"
        if bool((value <= 1e-6).all()) and bool(((value.exp().sum(dim) - 1).abs() < 1e-3).all()):
            return "log"
    return ""


def _scale(tensor: torch.Tensor) -> float:
    """A power of two that brings a large output to about 1, so that the objective's own square overflows in no format."""
    rms = tensor.detach().abs().double().square().mean().sqrt().item()
    return 2.0 ** round(math.log2(rms)) if math.isfinite(rms) and rms > 16 else 1.0


@cache
def _labels(count: int, classes: int, index: int) -> torch.Tensor:
    return balanced((count,), classes, torch.Generator().manual_seed(2 + index))


@cache
def _normal(shape: tuple[int, ...], index: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2 + index))
