"""From a target on the command line to a Subject."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from stabdiag.subject import device as devices
from stabdiag.subject import lightning, objective
from stabdiag.subject.attributes import uncompiled
from stabdiag.subject.build import bind, build, literal
from stabdiag.subject.capture import loop
from stabdiag.subject.choose import Choice, choose
from stabdiag.subject.declared import training
from stabdiag.subject.importing import import_target, parse_target
from stabdiag.subject.inputs.sources import Source, find_inputs
from stabdiag.subject.inputs.trial import attempt
from stabdiag.subject.seeds import seeded, shifted
from stabdiag.subject.subject import Play, Subject, SubjectError, call
from stabdiag.subject.weights import load_weights, stored
from stabdiag.trace import SubjectFacts


def load(
    target: str,
    *,
    arguments: dict[str, Any] | None = None,
    input_specs: Sequence[str] = (),
    data: str | None = None,
    weights: str | None = None,
    device: str = "cpu",
) -> Subject:
    """Load what is to be scanned. The model stays where its author built it; moving it to `device` is the caller's.

    Args:
        target: `path[:name]` or `module:name`.
        arguments: `--arg key=value`; text is read as a Python literal where it is one.
        input_specs: `--input`, each as `specification.parse` reads it.
        data: file with a batch.
        weights: file with a state_dict.
        device: checked only.

    Raises:
        SubjectError: everything a person can do wrong, in one sentence.
    """
    devices.resolve(device)
    taken = parse_target(target)
    given = {key: literal(value) if isinstance(value, str) else value for key, value in (arguments or {}).items()}
    shown = str(taken.path or taken.module)
    try:
        with seeded(0):
            module = import_target(taken)
            choice = choose(module, shown, taken.name, given)
            given |= choice.guessed
            model = _made(choice, module, given)
            if weights is not None:
                _initialised(model, module, choice.name, input_specs, data)
                load_weights(model, Path(weights))
            goal = _goal(module, choice, model, list(input_specs), data)
            settings = training(module, shown)
    except RecursionError as error:
        raise SubjectError(f"{shown} recurses without end; repair that first.", "load") from error
    rebuild = _rebuild(choice, module, given, goal.source) if choice.target is not None and weights is None else None
    facts = SubjectFacts(
        path=shown_path(taken.path) if taken.path is not None else taken.module,
        name=choice.name if choice.target is None or inspect.isclass(choice.target) else type(model).__name__,
        parameters=sum(p.numel() for p in model.parameters()),
        stored=stored(model),
        inputs=goal.source.text,
        objective=goal.objective.name,
        how={
            "model": choice.how + _arguments_note(choice, module, given) + (f"; weights from {weights}" if weights else ""),
            "inputs": goal.source.why,
            "objective": goal.objective.why + goal.ignored,
        },
        declared=[
            name
            for name, present in (
                ("inputs", goal.source.declared),
                ("loss", goal.objective.declared),
                ("optimizer", goal.make_optimizer is not None),
            )
            if present
        ],
        rebuildable=rebuild is not None,
        training=settings,
    )
    if not goal.objective.declared and taken.path is not None and (own := loop.own_loss(loop.tree(taken.path))) is not None:
        facts.unrun = f"`{own[0]}` in line {own[1]}"
    source = goal.source
    return Subject(
        model,
        source.batch,
        goal.objective.loss,
        facts,
        source.batches,
        goal.make_optimizer,
        rebuild,
        goal.play,
        goal.optimizer_from,
    )


@dataclass(frozen=True)
class _Goal:
    """What is fed, run, differentiated and stepped; `ignored` says what of the file was not used."""

    source: Source
    objective: objective.Objective
    make_optimizer: Callable[[nn.Module], Any] | None
    ignored: str = ""
    play: Play = call
    optimizer_from: str = "make_optimizer of the file"


def _goal(module: ModuleType, choice: Choice, model: nn.Module, specifications: list[str], data: str | None) -> _Goal:
    """The author's contract, else the convention of the framework, else what fits the output."""
    if lightning.has_training_step(model) and _contract(module, "loss") is None:
        step = lightning.step_of(model)
        source = lightning.batches_for(model, module, choice.name, specifications, data)
        own = _contract(module, "make_optimizer")
        how = "make_optimizer of the file" if own else f"configure_optimizers of {type(model).__name__}"
        what = objective.Objective(step.loss, step.name, "what the file trains with", True)
        return _Goal(source, what, own or lightning.configured(model), "", step.play, how)
    source = find_inputs(model, module, choice.name, specifications, data)
    what, ignored = _objective(module, source, model)
    return _Goal(source, what, _contract(module, "make_optimizer"), ignored)


def _made(choice: Choice, module: ModuleType, given: dict[str, Any]) -> nn.Module:
    if choice.instance is not None:
        if given:
            raise SubjectError(
                f"--arg was given, but {choice.name} is already built at module level; name a class or factory instead.",
                "usage",
            )
        model = choice.instance
    else:
        assert choice.target is not None
        with seeded(0):
            model = build(choice.target, choice.name, module, given)
    # Compiled parts run eager: what torch.compile made of them hides their ops from the tracer.
    for part in list(model.modules()):
        for name, child in list(part.named_children()):
            if (plain := uncompiled(child)) is not child:
                setattr(part, name, plain)
    return _training(model)


def _training(model: nn.Module) -> nn.Module:
    """The model in train mode; an author's own `train` need not return it."""
    model.train()
    return model


def _initialised(model: nn.Module, module: ModuleType, name: str, specifications: Sequence[str], data: str | None) -> None:
    """Give lazy layers their sizes by one trial forward, so that weights fit them."""
    if any(isinstance(part, nn.modules.lazy.LazyModuleMixin) for part in model.modules()):
        find_inputs(model, module, name, list(specifications), data)


def _rebuild(choice: Choice, module: ModuleType, given: dict[str, Any], source: Source) -> Callable[[int], nn.Module]:
    def rebuild(k: int) -> nn.Module:
        with seeded(k), shifted(k, module):
            assert choice.target is not None
            model = _made(choice, module, given) if k == 0 else _training(build(choice.target, choice.name, module, given))
        if any(isinstance(part, nn.modules.lazy.LazyModuleMixin) for part in model.modules()):
            attempt(model, source.batch(0))
        return model

    return rebuild


def _objective(module: ModuleType, source: Source, model: nn.Module) -> tuple[objective.Objective, str]:
    loss = getattr(module, "loss", None)
    function = _contract(module, "loss")
    ignored = ""
    if source.broke:
        return objective.unseen(function, model), ""
    target = source.batch(0).target
    with_target = _contract(module, "loss", 2)
    if target is not None and with_target is not None and function is None:
        return objective.declared_with_target(with_target, source.output, target), ""
    if function is not None:
        return objective.declared(function, source.output), ""
    if target is not None and (known := objective.against(source.output, target)) is not None:
        return known, ""
    if loss is not None:
        ignored = "; the file's own `loss` is not a function of the output alone"
    goal = objective.chosen(source.output, source.batch(0), model)
    value = goal.loss(source.output, source.batch(0))
    assert value.numel() == 1
    return goal, ignored


def _contract(module: ModuleType, name: str, arguments: int = 1) -> Callable[..., Any] | None:
    """A function of the file with this name that can be called with so many arguments."""
    function = getattr(module, name, None)
    if not callable(function) or isinstance(function, nn.Module):
        return None
    try:
        inspect.signature(function).bind(*[None] * arguments)
    except (TypeError, ValueError):
        return None
    return function  # type: ignore[no-any-return]


def _arguments_note(choice: Choice, module: ModuleType, given: dict[str, Any]) -> str:
    if choice.target is None or choice.guessed:
        return ""
    note = bind(choice.target, choice.name, module, given)[2]
    return f"; {note}" if note else ""


def shown_path(path: Path) -> str:
    """The path below the working directory, POSIX; as it was given where it lies elsewhere."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()
