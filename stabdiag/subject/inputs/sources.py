"""What the model is fed: from a file, from the command line, declared by the author, or inferred."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from stabdiag.recording.torch_private import tree_leaves
from stabdiag.subject.attributes import attribute
from stabdiag.subject.frames import is_library, one_line, place, user_traceback
from stabdiag.subject.inputs.adjust import Plan
from stabdiag.subject.inputs.data import read_data
from stabdiag.subject.inputs.infer import Inferred, draw, infer
from stabdiag.subject.inputs.signature import arguments_of
from stabdiag.subject.inputs.specification import Specification, parse
from stabdiag.subject.inputs.trial import attempt, clone
from stabdiag.subject.outputs import leaves, logits_of, own_loss
from stabdiag.subject.seeds import seeded
from stabdiag.subject.subject import Inputs, SubjectError
from stabdiag.subject.usage import example_shapes

_LABELS = ("labels", "label", "targets", "target", "y")

INFERRED_BATCHES = 8
"""How many different batches a generator is good for; any number could be drawn."""


@dataclass(frozen=True)
class Source:
    """Where inputs come from, and what the model returned for the first batch; `broke`: its numbers made it raise instead."""

    batch: Callable[[int], Inputs]
    batches: int
    text: str
    why: str
    declared: bool
    output: Any
    broke: bool = False


def find_inputs(model: nn.Module, module: ModuleType, shown: str, specifications: list[str], data: str | None) -> Source:
    """The inputs, each batch on fresh copies; what was asked for on the command line comes before what the file declares.

    Raises:
        SubjectError: kinds "usage", "input" and "forward".
    """
    if data is not None:
        batch, batches, note = read_data(Path(data), model)
        return _tried(model, batch, batches, f"read from {Path(data).name}{note}", True, shown, "--data")
    given = tuple(parse(text) for text in specifications)
    example = getattr(module, "example_inputs", None)
    if not given and example is not None:
        return _declared(model, example, shown)
    array = attribute(model, "example_input_array")
    if not given and array is not None and tree_leaves(array):
        inputs = as_inputs(array)
        return _tried(model, lambda _: inputs, 1, "example_input_array of the model", True, shown, "example_input_array")
    examples = [] if is_library(getattr(module, "__file__", "") or "") else example_shapes(module)
    inferred = infer(model, examples, shown, given)
    if not given:
        inferred = _labelled(model, inferred)
    parameters = arguments_of(model)
    text = ", ".join(str(specification) for specification in inferred.plan) or "none"
    why = f"from --input; {inferred.why}" if given else f"inferred: {inferred.why}"
    return Source(lambda k: draw(inferred.plan, parameters, k), INFERRED_BATCHES, text, why, False, inferred.trial.output)


def as_inputs(value: Any) -> Inputs:
    """What `example_inputs()` returned as the arguments of a call: a tuple or list by position, a mapping by name."""
    if isinstance(value, Mapping):
        return Inputs((), dict(value))
    if isinstance(value, list | tuple):
        return Inputs(tuple(value), {})
    return Inputs((value,), {})


def describe(inputs: Inputs) -> str:
    """`x 8×3×32×32, ids 4×128:int64`, for the report."""
    named = [("", value) for value in inputs.args] + list(inputs.kwargs.items())
    words = []
    for name, value in named:
        if isinstance(value, torch.Tensor):
            dtype = str(value.dtype).removeprefix("torch.")
            size = "×".join(map(str, value.shape)) or "scalar"
            words.append(f"{name} {size}".strip() + ("" if dtype == "float32" else f":{dtype}"))
        else:
            tensors = sum(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(value))
            words.append(f"{name} {type(value).__name__}".strip() + (f" of {tensors} tensors" if tensors else ""))
    return ", ".join(words) or "none"


def _declared(model: nn.Module, example: Any, shown: str) -> Source:
    def batch(k: int) -> Inputs:
        with seeded(k):
            return as_inputs(example() if callable(example) else example)

    try:
        first, second = batch(0), batch(1)
    except (Exception, SystemExit) as error:
        raise SubjectError(
            f"example_inputs() raises {one_line(error)}{place(error)}; expected a tuple or a dict of tensors.",
            "input",
            user_traceback(error),
        ) from error
    if not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((first.args, first.kwargs))):
        kind = type(first.args[0]).__name__ if first.args else "nothing"
        raise SubjectError(f"example_inputs() returned {kind}; expected a tuple or a dict of tensors.", "input")
    varies = not _equal(first, second) and _alike(first, second)
    why = "declared by example_inputs()" + ("" if varies else ", the same at every call")
    return _tried(
        model, batch if varies else lambda _: first, INFERRED_BATCHES if varies else 1, why, True, shown, "example_inputs()"
    )


def _tried(
    model: nn.Module, batch: Callable[[int], Inputs], batches: int, why: str, declared: bool, shown: str, origin: str
) -> Source:
    first = batch(0)
    trial = attempt(model, first)
    if trial.error is not None and not trial.numerical:
        error = trial.error
        what = "calls itself without end" if isinstance(error, RecursionError) else f"raises {one_line(error)}"
        raise SubjectError(
            f"{shown}.forward {what}{place(error)} on {origin} ({describe(first)}); repair the model or the inputs.",
            "forward",
            user_traceback(error),
        ) from error
    return Source(lambda k: clone(batch(k % batches)), batches, describe(first), why, declared, trial.output, trial.numerical)


def _labelled(model: nn.Module, inferred: Inferred) -> Inferred:
    """With labels, where forward takes them and then returns a loss of its own."""
    parameters = arguments_of(model)
    optional = [p.name for p in parameters if p.name in _LABELS and p.default is None]
    if own_loss(inferred.trial.output):
        return inferred
    for name in optional:
        for labels in _labels_for(name, inferred):
            plan: Plan = (*inferred.plan, labels)
            trial = attempt(model, draw(plan, parameters, 0))
            if trial.error is None and _finite_loss(trial.output):
                return replace(inferred, plan=plan, trial=trial, why=f"{inferred.why}; {name}: {labels.why}")
    return inferred


def _finite_loss(output: Any) -> bool:
    """Whether the output has a loss and that is finite: labels that make it infinite are wrong labels, no finding."""
    found = dict(leaves(output))
    paths = own_loss(output)
    return bool(paths) and all(bool(found[path].isfinite().all()) for path in paths)


def _labels_for(name: str, inferred: Inferred) -> list[Specification]:
    why = "balanced classes, for the model's own loss"
    found = []
    ids = next((s for s in reversed(inferred.plan) if s.values == "integers" and len(s.shape) == 2), None)
    logits = logits_of(inferred.trial.output)
    if logits is not None and logits.shape[-1] > 1:
        shapes = [tuple(logits.shape[:-1]), tuple(logits.shape[:1])]
        found += [Specification(name, shape, torch.int64, "labels", logits.shape[-1], why=why) for shape in shapes]
        if logits.dim() == 3:
            # A transcript is shorter than the sound, and the first class is the blank.
            short = (logits.shape[0], max(1, logits.shape[1] // 4))
            found.append(Specification(name, short, torch.int64, "labels", logits.shape[-1], why=why))
        if logits.dim() >= 4:
            dense = (logits.shape[0], *logits.shape[2:])
            found.append(Specification(name, dense, torch.int64, "labels", logits.shape[1], why=why))
    if ids is not None:
        classes = logits.shape[-1] if logits is not None and logits.dim() == 3 else ids.high
        found.insert(0, Specification(name, ids.shape, torch.int64, "labels", max(2, min(ids.high, classes)), why=why))
    if logits is not None:
        found.append(Specification(name, tuple(logits.shape), torch.float32, why="seeded targets, for the model's own loss"))
    return found


def _equal(a: Inputs, b: Inputs) -> bool:
    left, right = tree_leaves((a.args, a.kwargs)), tree_leaves((b.args, b.kwargs))
    return len(left) == len(right) and all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor) else x is y or type(x) is type(y)
        for x, y in zip(left, right, strict=True)
    )


def _alike(a: Inputs, b: Inputs) -> bool:
    """Whether two batches have the same structure and shapes: only then are they draws of the same thing."""
    left, right = tree_leaves((a.args, a.kwargs)), tree_leaves((b.args, b.kwargs))
    return len(left) == len(right) and all(
        getattr(x, "shape", None) == getattr(y, "shape", None) for x, y in zip(left, right, strict=True)
    )
