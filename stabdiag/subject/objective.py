"""The scalar that is differentiated: the author's loss, the model's own, or one that fits the output.

Targets come from a seeded CPU generator and are cast to the output's dtype: the same in every precision, classes balanced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from stabdiag.recording.torch_private import tree_leaves
from stabdiag.subject.frames import one_line, place, user_traceback
from stabdiag.subject.inputs.specification import balanced
from stabdiag.subject.inputs.trial import numbers_break
from stabdiag.subject.outputs import leaves, logits_of, made_by, normalised, own_loss, parts_of, shown
from stabdiag.subject.subject import Inputs, SubjectError

Loss = Callable[[Any, Inputs], torch.Tensor]

_NO_LOGITS = ("Tanh", "Sigmoid", "Relu", "LayerNorm", "RmsNorm", "BatchNorm", "GroupNorm", "Gelu", "Silu", "Elu", "Softplus",
              "Hardtanh", "Clamp", "Sin", "Cos", "Exp", "LinalgVectorNorm", "DivBackward0", "Threshold")  # fmt: skip
_LINEAR = ("Addmm", "Mm", "Bmm", "Baddbmm", "Linear", "Convolution", "AddBackward", "Softmax", "LogSoftmax", "CopySlices")


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
    objective = Objective(lambda out, _: loss(out).reshape(()), "loss(output) of the file", "declared by the author", True)
    try:
        value = loss(output)
    except Exception as error:
        if numbers_break(loss, output):
            return objective
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
    return objective


def declared_with_target(loss: Callable[[Any, Any], torch.Tensor], output: Any, target: Any) -> Objective:
    """The author's `loss(output, target)`, with the target that the data has. Raises as `declared`."""
    found = declared(lambda out: loss(out, target), output)
    return replace(
        found, loss=lambda out, inputs: loss(out, inputs.target).reshape(()), name="loss(output, target) of the file"
    )


def against(output: Any, target: torch.Tensor) -> Objective | None:
    """An objective that compares the first output with the target of the data; None where they do not fit each other."""
    logits = logits_of(output)
    if logits is None:
        return None
    path = next(path for path, tensor in leaves(output) if tensor is logits)

    def of(out: Any) -> torch.Tensor:
        return dict(leaves(out))[path]

    whole = not target.is_floating_point() and target.dtype != torch.bool
    places = logits.shape[:1] + logits.shape[2:]
    if (
        whole
        and logits.shape[1] > 1
        and target.shape == places
        and int(target.min()) >= 0
        and int(target.max()) < logits.shape[1]
    ):
        name = f"cross-entropy over {logits.shape[1]} classes of the data"
        return Objective(lambda out, inputs: F.cross_entropy(of(out), inputs.target), name, "classes of --data")
    if target.numel() == logits.numel():

        def mean_square(out: Any, inputs: Inputs) -> torch.Tensor:
            value = of(out)
            return F.mse_loss(value, inputs.target.reshape(value.shape).to(value.dtype))

        return Objective(mean_square, f"mean square of {shown(path)} against the target of the data", "the target of --data")
    return None


def unseen(loss: Callable[[Any], torch.Tensor] | None, model: nn.Module) -> Objective:
    """The objective of a model whose numbers break before there is an output: the declared one, or one for the first output
    that some precision gets to."""
    if loss is not None:
        return Objective(lambda out, _: loss(out).reshape(()), "loss(output) of the file", "declared by the author", True)
    found: list[Objective] = []

    def decided(out: Any, inputs: Inputs) -> torch.Tensor:
        found[:] = found or [chosen(out, inputs, model)]
        return found[0].loss(out, inputs)

    return Objective(decided, "none so far", "the model raised before it had an output")


def chosen(output: Any, inputs: Inputs, model: nn.Module) -> Objective:
    """An objective for this output, decided once from the float32 output and used in every precision.

    What is differentiated is what depends on parameters; where nothing does (a pure function, an output that was cut off), the
    first tensor is taken.

    Raises:
        SubjectError: kind "forward", when the output holds no numbers.
    """
    own = own_loss(output)
    if own:

        def of_model(out: Any, _: Inputs) -> torch.Tensor:
            found = dict(leaves(out))
            return torch.stack([found[path].reshape(()) for path in own]).sum() if len(own) > 1 else found[own[0]].reshape(())

        return Objective(of_model, f"the model's own loss, {' + '.join(map(shown, own))}", "the output has a scalar loss")
    parts = parts_of(output, model) or [(p, t) for p, t in leaves(output) if t.is_floating_point() and t.numel()][:1]
    if not parts:
        raise SubjectError(
            f"{type(model).__name__} cannot be differentiated: its output holds no float tensor; expected forward to return "
            "one, or a loss(output) in the file.",
            "forward",
        )
    terms = [_term(path, tensor, inputs, index) for index, (path, tensor) in enumerate(parts)]

    def loss(out: Any, inputs: Inputs) -> torch.Tensor:
        found = dict(leaves(out))
        total = terms[0][0](found[parts[0][0]])
        for (path, _), (term, *_) in zip(parts[1:], terms[1:], strict=True):
            total = total + term(found[path])
        return total

    names = " + ".join(name for _, name, _ in terms)
    return Objective(loss, names, "; ".join(dict.fromkeys(why for _, _, why in terms)))


def _term(
    path: str, tensor: torch.Tensor, inputs: Inputs, index: int
) -> tuple[Callable[[torch.Tensor], torch.Tensor], str, str]:
    """The loss of one tensor, its name, and why."""
    at = f" of {shown(path)}" if path else ""
    classes, dim, why = _classes(path, tensor, inputs, index)
    if classes and (kind := normalised(tensor, dim)):
        return _of_probabilities(kind, dim, classes, index, at)
    if classes:

        def cross_entropy(out: torch.Tensor) -> torch.Tensor:
            flat = out.movedim(dim, -1).reshape(-1, classes)
            return F.cross_entropy(flat, _labels(len(flat), classes, index).to(out.device))

        return cross_entropy, f"cross-entropy over {classes} classes{at}", f"{why}; balanced seeded labels"
    scale = _scale(tensor)
    divided = "" if scale == 1 else f"/{scale:g}"

    def mean_square(out: torch.Tensor) -> torch.Tensor:
        out = torch.view_as_real(out) if out.is_complex() else out
        return F.mse_loss(out if scale == 1 else out / scale, _normal(tuple(out.shape), index).to(out.device, out.dtype))

    why = f"{shown(path)} is no class logits" + (f", root mean square about {scale:g}" if scale != 1 else "")
    return mean_square, f"mean square of {shown(path)}{divided} against a seeded normal target", why


def _classes(path: str, tensor: torch.Tensor, inputs: Inputs, index: int) -> tuple[int, int, str]:
    """Of class logits the number of classes, their dimension and why they are taken for that; 0 classes of anything else.

    Logits are what is named so, or what a linear map made: behind an activation or a normalisation, or in the shape of an
    input (reconstructions, denoisers), there are none. Further heads count only by name: nothing tells what they mean.
    """
    shape, maker, named = tensor.shape, made_by(tensor), "logits" in path
    given = [leaf for leaf in tree_leaves((inputs.args, inputs.kwargs)) if isinstance(leaf, torch.Tensor)]
    floats = [leaf for leaf in given if leaf.is_floating_point()]
    tokens = [leaf for leaf in given if not leaf.is_floating_point() and leaf.dim() >= 2]
    unlikely = bool(index) or path.endswith(("mean", "stddev")) or any(leaf.shape == shape for leaf in floats)
    normal = maker.startswith(("Softmax", "LogSoftmax"))
    if not (named or normal) and (unlikely or any(word in maker for word in _NO_LOGITS)):
        return 0, -1, ""
    if len(shape) == 2 and shape[1] > 1:
        return shape[1], 1, f"{shape[1]} class logits per sample"
    per_token = maker.startswith(_LINEAR) and any(leaf.shape[:2] == shape[:2] for leaf in tokens)
    if len(shape) == 3 and shape[-1] > 1 and (named or per_token or (normal and normalised(tensor, -1))):
        return shape[-1], -1, f"{shape[-1]} logits per token"
    if len(shape) > 2 and normal and normalised(tensor, 1):
        return shape[1], 1, f"{shape[1]} normalised classes per position"
    dense = len(shape) in (4, 5) and shape[1] > 1 and "Convolution" in maker
    if dense and any(leaf.shape[2:] == shape[2:] and leaf.shape[1] != shape[1] for leaf in floats if leaf.dim() == len(shape)):
        return shape[1], 1, f"{shape[1]} class logits per position"
    return 0, -1, ""


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
