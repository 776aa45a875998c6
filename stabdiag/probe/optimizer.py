"""The optimizer of the training steps: the author's own, the one asked for, else AdamW at 1e-3.

Where it is constructed is noted while it is being made: that line holds the learning rate an author would edit.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from stabdiag.errors import did_you_mean
from stabdiag.recording.source import here
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.attributes import attribute
from stabdiag.subject.subject import Subject, SubjectError
from stabdiag.trace import Location

DEFAULT_LEARNING_RATE = 1e-3


@dataclass
class Chosen:
    """Optimizers ready to step on a staged model.

    Attributes:
        optimizers: usually one; a GAN's make_optimizer returns two.
        chosen_by: "author" (make_optimizer), "options" (the command line) or "default".
        how: the choice in words, with its reason.
        location: the line that constructed the optimizer, None where no line of the user's did.
    """

    optimizers: list[torch.optim.Optimizer]
    chosen_by: str
    how: str
    location: Location | None = None

    def step(self) -> None:
        """One step of each."""
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, model: nn.Module) -> None:
        """Drop all gradients, also those that no optimizer owns."""
        for parameter in model.parameters():
            parameter.grad = None

    @cached_property
    def groups(self) -> list[dict[str, Any]]:
        """All parameter groups."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters that are stepped, each once."""
        return list({id(p): p for group in self.groups for p in group["params"]}.values())

    def build_up(self, group: dict[str, Any]) -> float:
        """How much larger an update can still grow than the first one: momentum that has not built up, a warm-up that has
        just begun (schedulers keep the rate they lead to as `initial_lr`). At least 1."""
        momentum = float(group.get("momentum") or 0.0)
        growth = (1.0 - float(group.get("dampening") or 0.0)) / (1.0 - momentum) if 0.0 < momentum < 1.0 else 1.0
        rate, target = float(group["lr"]), float(group.get("initial_lr", group["lr"]))
        return max(1.0, growth) * (max(1.0, target / rate) if rate > 0.0 else 1.0)

    @property
    def facts(self) -> dict[str, Any]:
        """The choice as plain data: name, chosen_by, how, location, and lr, momentum, eps, adaptive, weight_decay of the
        first group. `momentum` is Adam's first beta, too; `adaptive` means preconditioned like Adam; `warming_up` means that a
        scheduler holds the rate below what it leads to."""
        first = self.groups[0]
        betas = first.get("betas")
        epsilon = (
            None if isinstance(first.get("eps"), tuple) else first.get("eps")
        )  # Adafactor's two are no floor of a gradient
        kind = type(self.optimizers[0])
        return {
            "name": kind.__name__,
            "chosen_by": self.chosen_by,
            "how": self.how,
            "location": asdict(self.location) if self.location is not None else None,
            "lr": float(first["lr"]),
            "momentum": float(betas[0] if betas is not None else first.get("momentum") or 0.0),
            "eps": float(epsilon) if epsilon is not None else None,
            "adaptive": betas is not None and epsilon is not None,
            "weight_decay": float(first.get("weight_decay") or 0.0),
            "warming_up": any(float(g["lr"]) < float(g.get("initial_lr", g["lr"])) for g in self.groups),
        }


def choose(subject: Subject, model: nn.Module, request: ScanRequest) -> Chosen:
    """The optimizer on a staged model's parameters.

    Raises:
        SubjectError: the options of the command line make no optimizer for this model.
    """
    problem = ""
    if request.optimizer is None and subject.make_optimizer is not None:
        try:
            return _authors(subject, model, request)
        except SubjectError:
            raise
        except Exception as error:
            problem = f"{subject.optimizer_from} failed ({type(error).__name__}: {error}): "
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = _asked_for(parameters, request, _default(model))
    by_options = any(option is not None for option in (request.optimizer, request.lr, request.momentum))
    why = "as asked for" if by_options else "because no optimizer is declared"
    how = f"{problem}{type(optimizer).__name__} at {optimizer.param_groups[0]['lr']:g}, {why}"
    return Chosen([optimizer], "options" if by_options else "default", how)


def check(request: ScanRequest) -> None:
    """Raise SubjectError when the options make no optimizer, before anything has run."""
    if request.optimizer is not None:
        _asked_for([nn.Parameter(torch.zeros(1, 1))], request, torch.optim.AdamW)


def _default(model: nn.Module) -> type[torch.optim.Optimizer]:
    """AdamW, but it takes no sparse gradients."""
    sparse = any(attribute(module, "sparse") is True for module in model.modules())
    return torch.optim.SGD if sparse else torch.optim.AdamW


def _asked_for(
    parameters: list[nn.Parameter], request: ScanRequest, default: type[torch.optim.Optimizer]
) -> torch.optim.Optimizer:
    kind: type[Any] = named(request.optimizer) if request.optimizer is not None else default
    options = _options(kind, request)
    if request.optimizer is None:
        options.setdefault("lr", DEFAULT_LEARNING_RATE)
    try:
        optimizer: torch.optim.Optimizer = kind(parameters, **options)
    except (TypeError, ValueError) as error:
        raise SubjectError(f"{kind.__name__} cannot be made with these options for this model: {error}", "usage") from error
    return optimizer


def named(name: str) -> type[Any]:
    """The class in `torch.optim` of this name, in any spelling of upper and lower case."""
    known = {
        key.lower(): kind
        for key, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    }
    kind = known.get(name.lower())
    if kind is None:
        names = [k.__name__ for k in known.values()]
        raise SubjectError(f"torch.optim has no optimizer `{name}`{did_you_mean(name, names)}", "usage")
    if _needs_closure(kind):
        raise SubjectError(
            f"{kind.__name__} evaluates the loss several times per step, which is not supported: try adamw", "usage"
        )
    return kind


def _needs_closure(kind: type[Any]) -> bool:
    closure = inspect.signature(inspect.unwrap(kind.step)).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _options(kind: type[Any], request: ScanRequest) -> dict[str, Any]:
    """The settings of the optimizer as arguments of the class; momentum is the first beta where it has betas."""
    options = {name: value for name in ("lr", "eps", "weight_decay") if (value := getattr(request, name)) is not None}
    if request.momentum is not None:
        arguments = inspect.signature(kind).parameters
        if "momentum" in arguments:
            options["momentum"] = request.momentum
        elif "betas" in arguments:
            options["betas"] = (request.momentum, *arguments["betas"].default[1:])
        else:
            raise SubjectError(f"{kind.__name__} has no momentum: leave --momentum out or take --optimizer sgd", "usage")
    return options


def _authors(subject: Subject, model: nn.Module, request: ScanRequest) -> Chosen:
    assert subject.make_optimizer is not None
    with _noting_construction() as lines:
        made = subject.make_optimizer(model)
    optimizers = [o for o in _flat(made) if isinstance(o, torch.optim.Optimizer)]
    if not optimizers:
        raise TypeError(f"it returned {type(made).__name__}, expected a torch.optim.Optimizer")
    if any(_needs_closure(type(o)) for o in optimizers):
        raise TypeError("its step needs a closure, which is not supported")
    how = subject.optimizer_from
    for name in ("lr", "momentum", "eps", "weight_decay"):
        value = getattr(request, name)
        if value is None:
            continue
        how += f", with {name} {value:g} as asked for"
        for group in (g for o in optimizers for g in o.param_groups):
            if name in group:
                group[name] = value
            elif name == "momentum" and "betas" in group:
                group["betas"] = (value, *group["betas"][1:])
    for group in (g for o in optimizers for g in o.param_groups):
        if not group["lr"] and group.get("initial_lr"):  # a warm-up that starts at 0 would take no step at all
            group["lr"] = group["initial_lr"]
            how += ", at the rate its warm-up leads to"
    return Chosen(optimizers, "author", how, lines.get(id(optimizers[0]), subject.optimizer_at))


def _flat(made: Any) -> Iterator[Any]:
    if isinstance(made, dict):
        made = tuple(made.values())
    if isinstance(made, (list, tuple)):
        for one in made:
            yield from _flat(one)
    else:
        yield made


@contextmanager
def _noting_construction() -> Iterator[dict[int, Location]]:
    """Note which line constructs each optimizer, by its id."""
    lines: dict[int, Location] = {}
    original = torch.optim.Optimizer.__init__

    def noting(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:
        at = here()
        if at is not None:
            lines[id(self)] = at
        original(self, *args, **kwargs)

    torch.optim.Optimizer.__init__ = noting  # type: ignore[method-assign]
    try:
        yield lines
    finally:
        torch.optim.Optimizer.__init__ = original  # type: ignore[method-assign]
