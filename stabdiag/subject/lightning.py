"""Lightning's conventions: `training_step` is the objective, `configure_optimizers` the optimizer, a data module the data.

The step is called as it is, without a Trainer: `self.log` and `self.current_epoch` work so, and every precision runs the
author's own code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

from stabdiag.subject.attributes import attribute
from stabdiag.subject.frames import one_line, place, user_traceback
from stabdiag.subject.inputs.loaders import Batches, batches_of, loaders_of
from stabdiag.subject.inputs.sources import Source, as_inputs, describe, find_inputs
from stabdiag.subject.inputs.specification import Specification
from stabdiag.subject.inputs.structure import structure_of
from stabdiag.subject.inputs.trial import clone, untouched
from stabdiag.subject.outermost import watching
from stabdiag.subject.outputs import logits_of
from stabdiag.subject.seeds import seeded
from stabdiag.subject.subject import Inputs, Returned, SubjectError

_PACKAGES = ("lightning", "pytorch_lightning")


def is_lightning(kind: type, name: str = "LightningModule") -> bool:
    """Whether a class derives from one of Lightning's, told without importing it."""
    return any(base.__name__ == name and base.__module__.split(".")[0] in _PACKAGES for base in kind.__mro__)


def has_training_step(model: nn.Module) -> bool:
    """Whether a model is a LightningModule with a training step of its own."""
    step = inspect.getattr_static(type(model), "training_step", None)
    return is_lightning(type(model)) and step is not None and step.__module__.split(".")[0] not in _PACKAGES


@dataclass(frozen=True)
class Step:
    """The training step of a LightningModule as a subject's objective.

    Attributes:
        name: for the report.
        takes: how many arguments it takes (the batch, the index of the batch, the index of the loader).
    """

    name: str
    takes: int

    def play(self, model: nn.Module, inputs: Inputs, returned: Returned) -> Any:
        """Run the step on the one batch in `inputs`."""
        with watching(returned):
            return model.training_step(*(*inputs.args, 0, 0)[: self.takes])  # type: ignore[operator]

    @staticmethod
    def loss(output: Any, inputs: Inputs) -> torch.Tensor:
        """The loss in what the step returned: a tensor, or a dict with `loss`."""
        return (output["loss"] if isinstance(output, Mapping) else output).reshape(())  # type: ignore[no-any-return]


def step_of(model: nn.Module) -> Step:
    """The training step of a LightningModule.

    Raises:
        SubjectError: kind "load", when it optimises by hand.
    """
    kind = type(model).__name__
    if attribute(model, "automatic_optimization") is False:
        raise SubjectError(
            f"{kind} optimises by hand (automatic_optimization is False), so its training_step returns no "
            "loss to differentiate; scan the run instead: `stabdiag run` with the script that fits it.",
            "load",
        )
    parameters = inspect.signature(model.training_step).parameters.values()  # type: ignore[arg-type]
    takes = 3 if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(parameters)
    return Step(f"training_step of {kind}", takes)


def configured(model: nn.Module) -> Callable[[nn.Module], Any] | None:
    """What makes the optimizers, in any of the forms that `configure_optimizers` may return; None where it is not written."""
    own = inspect.getattr_static(type(model), "configure_optimizers", None)
    if own is None or own.__module__.split(".")[0] in _PACKAGES:
        return None
    return lambda staged: staged.configure_optimizers()  # type: ignore[operator]


def batches_for(model: nn.Module, module: ModuleType, shown: str, specifications: list[str], data: str | None) -> Source:
    """The batches a training step is fed: declared, of a loader or data module, or inferred from what it does with them.

    Raises:
        SubjectError: the step does not take them.
    """
    step, first_error = step_of(model), None
    for batches in _offered(model, module, specifications, data):
        for wrap in (_whole, _alone):
            inputs = Inputs((wrap(batches.batch(0)),), {})
            output, error = _attempt(step, model, inputs)
            if error is None:
                take = _taking(batches, wrap)
                return Source(take, batches.count, describe_batch(inputs), batches.why, batches.declared, output)
            first_error = first_error or (error, inputs, batches)
    if first_error is None or not first_error[2].declared:
        inferred = _inferred(step, model, module, shown, specifications, data)
        if inferred is not None:
            return inferred
    if first_error is None:
        raise SubjectError(
            f"{shown}.training_step took none of the batches that fit its forward; add an example_inputs() that returns "
            "one batch, or scan the run: `stabdiag run` with the script that fits it.",
            "forward",
        )
    error, inputs, batches = first_error
    raise SubjectError(
        f"{step.name} raises {one_line(error)}{place(error)} on a batch of {describe_batch(inputs)}, {batches.why}; repair it, "
        "or let example_inputs() return one batch.",
        "forward",
        user_traceback(error),
    ) from error


def describe_batch(inputs: Inputs) -> str:
    """The one batch of a step for the report."""
    batch = inputs.args[0]
    return describe(as_inputs(batch))


def _whole(batch: Any) -> Any:
    return batch


def _alone(batch: Any) -> Any:
    """The only item of a batch, where example_inputs() meant arguments and not a batch."""
    return batch[0] if isinstance(batch, list | tuple) and len(batch) == 1 else batch


def _taking(batches: Batches, wrap: Callable[[Any], Any]) -> Callable[[int], Inputs]:
    return lambda k: clone(Inputs((wrap(batches.batch(k % batches.count)),), {}))


def _attempt(step: Step, model: nn.Module, inputs: Inputs) -> tuple[Any, Exception | None]:
    try:
        with seeded(0), torch.enable_grad(), untouched(model):
            model.train()
            output = step.play(model, clone(inputs), lambda output: None)
            loss = step.loss(output, inputs)
    except Exception as error:
        return None, error
    if not loss.requires_grad:
        return None, ValueError("the loss it returns does not depend on a parameter")
    return output, None


def _offered(model: nn.Module, module: ModuleType, specifications: list[str], data: str | None) -> Iterator[Batches]:
    """Batches that the file has, best first."""
    if specifications or data is not None:
        return
    example = vars(module).get("example_inputs")
    if example is not None:

        def declared(k: int) -> Any:
            with seeded(k):
                return example() if callable(example) else example

        yield Batches(declared, 2, "declared by example_inputs()", True)
        return
    yield from _of_data_modules(module)
    own = inspect.getattr_static(type(model), "train_dataloader", None)
    if own is not None and own.__module__.split(".")[0] not in _PACKAGES:
        make: Any = model.train_dataloader
        if (loaded := batches_of(make, f"train_dataloader of {type(model).__name__}")) is not None:
            yield loaded
    yield from loaders_of(module)


def _of_data_modules(module: ModuleType) -> Iterator[Batches]:
    for name, value in list(vars(module).items()):
        kind = value if inspect.isclass(value) else type(value)
        if not is_lightning(kind, "LightningDataModule") or kind.__module__ != module.__name__:
            continue

        def loader(value: Any = value) -> Any:
            data: Any = value() if inspect.isclass(value) else value
            data.prepare_data()
            data.setup("fit")
            return data.train_dataloader()

        if (found := batches_of(loader, f"train_dataloader of {name}")) is not None:
            yield found


def _inferred(
    step: Step, model: nn.Module, module: ModuleType, shown: str, specifications: list[str], data: str | None
) -> Source | None:
    """Inputs that fit forward, in the structure that the step takes apart, with targets that it accepts."""
    source = find_inputs(model, module, shown, specifications, data)
    leaves, structure = structure_of(type(model), "training_step")

    def items(k: int) -> list[Any]:
        inputs = source.batch(k)
        return [*inputs.args, *inputs.kwargs.values()]

    found: Source | None = None
    for target in _targets(source.output, items(0), leaves):

        def batch(k: int, target: Specification | None = target) -> Inputs:
            drawn = [] if target is None else [target.sample(torch.Generator().manual_seed(2 + k))]
            return clone(Inputs((structure([*items(k), *drawn]),), {}))

        inputs = batch(0)
        output, error = _attempt(step, model, inputs)
        finite = error is None and bool(step.loss(output, inputs).isfinite())
        if finite or (error is None and found is None):  # an infinite loss may be the step's fault, or that of such targets
            why = source.why + (f"; targets: {target.why}" if target is not None else "")
            declared = source.declared and target is None
            found = Source(batch, source.batches, describe_batch(inputs), why, declared, output)
        if finite:
            break
    return found


def _targets(output: Any, items: list[Any], leaves: int) -> Iterator[Specification | None]:
    """Targets worth trying, the likeliest first; None for a step that takes nothing but the inputs."""
    if leaves <= len(items):
        yield None
        return
    logits = logits_of(output)
    if logits is not None:
        shape, classes = tuple(logits.shape), logits.shape[-1]
        if classes > 1:
            yield Specification("", shape[:-1], torch.int64, "labels", classes, why="balanced classes")
            if logits.dim() > 2:
                yield Specification("", (shape[0], *shape[2:]), torch.int64, "labels", shape[1], why="balanced classes")
        yield Specification("", shape, why="seeded normal values")
        yield Specification("", shape, torch.float32, "labels", 2, why="balanced zeros and ones")
        if classes == 1:
            yield Specification("", shape[:-1], why="seeded normal values")
            yield Specification("", shape[:-1], torch.float32, "labels", 2, why="balanced zeros and ones")
    first = next((item for item in items if isinstance(item, torch.Tensor)), None)
    if first is not None:
        yield Specification("", tuple(first.shape[:1]), torch.int64, "labels", 2, why="balanced zeros and ones")
        yield Specification("", tuple(first.shape), why="seeded normal values")
