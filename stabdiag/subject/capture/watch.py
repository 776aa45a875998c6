"""Watching a script train: which optimizers it makes, when they step, and when a step has been captured whole.

One cycle is what a script does until every optimizer has stepped once: both halves of a GAN, all micro-batches of an
accumulated step. Gradients that an optimizer drops (zero_grad) before it steps do not count for its parameters.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from stabdiag.recording.source import here
from stabdiag.subject.capture.frames import modules_in_sight, tensors_by_identity
from stabdiag.subject.capture.record import TapeRecorder
from stabdiag.subject.capture.tape import Loss, Tape
from stabdiag.trace import Location

PATIENCE = 16
"""Steps of one optimizer in which another must have stepped, to be part of the same cycle: a critic takes 5 per generator's."""


class Ended(BaseException):
    """Ends the script once its step is captured. No `except Exception` of the author's catches it."""


@dataclass
class Stepping:
    """An optimizer of the script in one cycle.

    Attributes:
        steps: how many it has taken; repeated: how many of them in this cycle after its first; turn: how many stepped before.
        taken: the losses whose gradients it stepped with, by index; None while it has not stepped.
        before: its parameters and what they held before its step; copy: the optimizer itself, its state likewise.
    """

    optimizer: weakref.ref[Optimizer]
    location: Location | None
    steps: int = 0
    repeated: int = 0
    turn: int = 0
    waiting: set[int] = field(default_factory=set)
    taken: set[int] | None = None
    before: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    copy: Optimizer | None = None


@dataclass
class Cycle:
    """One captured step.

    Attributes:
        tape: pruned to what leads to its losses; step: its number, from 1.
        optimizers: copies in the order of their steps, with the state before; made_at: the line that constructed the first.
        before: every parameter and buffer that the script changed since, and what it held.
        modules: the author's modules in sight of backward(), with names, the largest first.
        missing: lines of optimizers that took no step.
        clip, clip_value: the norm and the value that gradients were clipped to, if any; scale: of a loss scaler.
    """

    tape: Tape
    step: int
    optimizers: list[Optimizer]
    made_at: Location | None
    before: list[tuple[Tensor, Tensor]]
    modules: list[tuple[str, nn.Module]]
    lines: dict[int, Location | None]
    missing: list[Location | None]
    clip: float | None = None
    clip_value: float | None = None
    scale: float | None = None


class Watch:
    """Calls `captured(cycle)` when step `at` of the script is whole, from within the script.

    Args:
        at: which step, from 1.
        captured: told each whole cycle from step `at` on, until it raises Ended or returns False.
        stubborn: called where the script catches Ended again and again.
    """

    def __init__(self, at: int, captured: Callable[[Cycle], bool], stubborn: Callable[[], None] = lambda: None) -> None:
        self.at = at
        self.problem = ""
        self.steps = 0
        self.losses = 0
        self._captured = captured
        self._recorder = TapeRecorder()
        self._optimizers: list[Stepping] = []
        self._modules: list[tuple[str, nn.Module]] = []
        self._recording = False
        self._done = self._ended = False
        self._caught = 0
        self._stubborn = stubborn
        self._clip: float | None = None
        self._clip_value: float | None = None
        self._scale: float | None = None

    # -- cycles ---------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._recording = True
        self._recorder.start()
        for one in self._optimizers:
            one.taken, one.repeated, one.waiting, one.before, one.copy = None, 0, set(), [], None

    def _alive(self) -> Iterator[tuple[Stepping, Optimizer]]:
        for one in self._optimizers:
            if (optimizer := one.optimizer()) is not None:
                yield one, optimizer

    def _made(self, optimizer: Optimizer) -> None:
        self._optimizers.append(Stepping(weakref.ref(optimizer), here(past_ours=True)))
        self._own(optimizer)

    def _own(self, optimizer: Optimizer) -> None:
        for parameter in _parameters(optimizer):
            self._recorder.owned[id(parameter)] = parameter

    def _differentiated(self, tensors: Any, gradients: Any) -> None:
        self.losses += 1
        if not self._recording:
            return
        for _, optimizer in self._alive():
            self._own(optimizer)
        loss = self._recorder.differentiated(tensors, gradients, any(one.taken is not None for one, _ in self._alive()))
        if loss is None:
            at = here(past_ours=True)
            where = f" in line {at.line}" if at is not None else ""
            self.problem = f"what backward() is called on{where} was not computed by torch functions that can be followed"
            return
        self._recorder.name_leaves(tensors_by_identity())
        seen = modules_in_sight()
        self._modules = seen + [known for known in self._modules if all(known[1] is not module for _, module in seen)]
        for one, _ in self._alive():
            one.waiting.add(len(self._recorder.tape.losses) - 1)

    def _zeroed(self, zeroed: Iterable[Tensor]) -> None:
        if not self._recording:
            return
        parameters = {id(p) for p in zeroed}
        for one, optimizer in self._alive():
            own = {id(p) for p in _parameters(optimizer)}
            if own & parameters and one.taken is None:
                one.waiting.clear()

    def _stepping(self, optimizer: Optimizer) -> None:
        """An optimizer is about to step: its gradients are final."""
        self._end_again()
        one = next((one for one, known in self._alive() if known is optimizer), None)
        if one is None:
            self._made(optimizer)
            one = self._optimizers[-1]
        if not self._recording:
            return
        if one.taken is None:
            one.turn = sum(other.taken is not None for other in self._optimizers)
            one.taken, one.waiting = one.waiting, set()
            one.before = [(p, p.detach().clone()) for p in _parameters(optimizer)]
            one.copy = copied(optimizer)
        else:
            one.repeated += 1
        if all(o.taken is not None for o, _ in self._alive()) or one.repeated >= PATIENCE:
            self._whole()

    def _stepped(self, optimizer: Optimizer) -> None:
        for one, known in self._alive():
            if known is optimizer:
                one.steps += 1
                self.steps = max(self.steps, one.steps)
        if not self._recording and not self._done and self.steps >= self.at - 1:
            self._begin()

    def _whole(self) -> None:
        """Every optimizer has stepped or is about to: hand the cycle on."""
        tape = self._recorder.stop()
        self._recording = False
        stepped = [(one, o) for one, o in self._alive() if one.taken is not None]
        stepped.sort(key=lambda item: item[0].turn)
        if tape.losses and any(one.taken for one, _ in stepped):
            cycle = self._cycle(tape, stepped)
            try:
                self._done = not self._captured(cycle)
            except Ended:
                self._ended = True
                raise
        elif not self.problem:
            self.problem = "an optimizer steps, but backward() was not called for it"

    def _cycle(self, tape: Tape, stepped: list[tuple[Stepping, Optimizer]]) -> Cycle:
        missing = [one.location for one, _ in self._alive() if one.taken is None]
        _direct(tape.losses, stepped)
        tape.losses = [loss for loss in tape.losses if loss.into is None or loss.into]
        return Cycle(
            tape.pruned(),
            self.steps + 1,
            [one.copy for one, _ in stepped if one.copy is not None],
            stepped[0][0].location,
            [*(pair for one, _ in stepped for pair in one.before), *self._recorder.buffers.values()],
            sorted(self._modules, key=lambda item: -sum(1 for _ in item[1].modules())),
            self._recorder.lines,
            missing,
            self._clip,
            self._clip_value,
            self._scale,
        )

    def _end_again(self) -> None:
        """End a script that caught Ended: a bare `except:` around each step would catch it for ever."""
        if self._ended:
            self._caught += 1
            if self._caught > 2:
                self._stubborn()
            raise Ended

    def finish(self) -> None:
        """The script has ended: a cycle in which only some optimizers stepped is all there will be."""
        if self._recording and any(one.taken for one, _ in self._alive()):
            self._whole()
        elif self._recording:
            self._recorder.stop()
            self._recording = False

    # -- hooks ----------------------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow what the script does while the context lasts."""
        with ExitStack() as stack:
            made = Optimizer.__init__
            watch = self

            def init(self: Optimizer, *args: Any, **kwargs: Any) -> None:
                made(self, *args, **kwargs)
                watch._made(self)

            def zero_grad(self: Optimizer, *args: Any, **kwargs: Any) -> None:
                watch._zeroed(_parameters(self))
                zeroing(self, *args, **kwargs)

            def module_zero_grad(self: nn.Module, *args: Any, **kwargs: Any) -> None:
                watch._zeroed(self.parameters())
                module_zeroing(self, *args, **kwargs)

            def backward(tensors: Any, grad_tensors: Any = None, *args: Any, **kwargs: Any) -> None:
                watch._end_again()
                watch._differentiated(tensors, grad_tensors)
                differentiating(tensors, grad_tensors, *args, **kwargs)

            def scale(self: Any, outputs: Any) -> Any:
                scaled = scaling(self, outputs)
                watch._recorder.same(scaled, outputs)
                watch._scale = float(self.get_scale()) if self.is_enabled() else None
                return scaled

            def clip_norm(parameters: Any, max_norm: float, *args: Any, **kwargs: Any) -> Any:
                watch._clip = float(max_norm)
                return clipping(parameters, max_norm, *args, **kwargs)

            def clip_value(parameters: Any, value: float, *args: Any, **kwargs: Any) -> Any:
                watch._clip_value = float(value)
                return clipping_value(parameters, value, *args, **kwargs)

            zeroing, module_zeroing = Optimizer.zero_grad, nn.Module.zero_grad
            differentiating, scaling = torch.autograd.backward, torch.amp.GradScaler.scale
            clipping, clipping_value = torch.nn.utils.clip_grad_norm_, torch.nn.utils.clip_grad_value_
            for home, name, new in (
                (Optimizer, "__init__", init),
                (Optimizer, "zero_grad", zero_grad),
                (nn.Module, "zero_grad", module_zero_grad),
                (torch.autograd, "backward", backward),
                (torch.amp.GradScaler, "scale", scale),
                (torch.nn.utils, "clip_grad_norm_", clip_norm),
                (torch.nn.utils.clip_grad, "clip_grad_norm_", clip_norm),
                (torch.nn.utils, "clip_grad_value_", clip_value),
                (torch.nn.utils.clip_grad, "clip_grad_value_", clip_value),
            ):
                stack.callback(setattr, home, name, getattr(home, name))
                setattr(home, name, new)
            for handle in (
                register_optimizer_step_pre_hook(self._before_step),
                register_optimizer_step_post_hook(self._after_step),
            ):
                stack.callback(handle.remove)
            if self.at == 1:
                self._begin()
            stack.callback(self._recorder.stop)
            yield

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        place = next((i for i, a in enumerate(args[1:], 1) if callable(a)), None)
        closure = kwargs.get("closure") or (args[place] if place is not None else None)
        if not callable(closure):
            self._stepping(optimizer)
            return None
        calls = 0

        def watched() -> Any:
            nonlocal calls
            result = closure()
            calls += 1
            if calls == 1:
                self._stepping(optimizer)
            return result

        if place is not None:
            return (*args[:place], watched, *args[place + 1 :]), kwargs
        return args, {**kwargs, "closure": watched}

    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._stepped(optimizer)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _direct(losses: list[Loss], stepped: list[tuple[Stepping, Optimizer]]) -> None:
    """Say of each loss for which parameters its gradients were taken."""
    if len(stepped) == 1:
        for index, loss in enumerate(losses):
            loss.into = None if index in (stepped[0][0].taken or ()) else set()
        return
    for index, loss in enumerate(losses):
        loss.into = {id(p) for one, o in stepped if index in (one.taken or ()) for p in _parameters(o)}


def copied(optimizer: Optimizer) -> Optimizer:
    """An optimizer on the same parameters with a state of its own, without hooks and a scheduler's wrapper of `step`."""
    new: Optimizer = object.__new__(type(optimizer))
    same: dict[int, Any] = {id(p): p for p in _parameters(optimizer)}
    for name, value in vars(optimizer).items():
        if name == "step" or name.endswith("_hooks"):
            continue
        try:
            new.__dict__[name] = copy.deepcopy(value, dict(same))
        except Exception:  # a lock, a file: the optimizer itself shares it, too
            new.__dict__[name] = value
    for name in [name for name in vars(optimizer) if name.endswith("_hooks")]:
        new.__dict__[name] = type(vars(optimizer)[name])()
    return new
