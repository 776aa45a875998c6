"""Writing the program while the author's own code runs: outermost module calls, and the functions between them and `backward`.

Only what the gradient goes through is written: what is made of the batch before the model reads it, noise, and what a teacher
returns under `no_grad` are leaves, which keeps the program short and right whatever the loop does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.weak import WeakIdKeyDictionary

from stabdiag.live.program import Call, Goal, Leaf, Made, Own, Program, RandomState, mapped
from stabdiag.recording.source import here
from stabdiag.recording.torch_private import enter_function_mode, leave_function_mode, times_written
from stabdiag.subject.outputs import leaves as tensors_of
from stabdiag.trace import Location

_DRAWS = ("dropout", "gumbel", "rrelu", "bernoulli", "multinomial", "rand", "normal", "poisson")
_SCALER = "torch/amp/grad_scaler.py"


class Tape:
    """Writes one program.

    Args:
        names: of the model's parameters and buffers, by identity.
        keep_gradients: keep what reaches the outputs of the modules, because nobody will see the loss.

    Attributes:
        own_losses: what models returned as their loss, where gradients are kept.
    """

    def __init__(self, names: Mapping[int, str], keep_gradients: bool) -> None:
        self.program = Program()
        self._names = names
        self._made: Any = WeakIdKeyDictionary()
        self._scaled: Any = WeakIdKeyDictionary()
        self._leaves: dict[int, Leaf] = {}
        self._keep_gradients = keep_gradients
        self.own_losses: list[Tensor] = []

    def module(self, path: str, module: nn.Module, args: Any, kwargs: Any, output: Any, random: RandomState) -> None:
        """Write an outermost call, if a gradient can come back through it."""
        made = [tensor for _, tensor in tensors_of(output)]
        if not any(tensor.requires_grad for tensor in made):
            return
        names = _argument_names(module, args)
        call = Call(path, type(module).__name__, None, (), {}, here(), random)
        call.args = tuple(self._noted(argument, name) for name, argument in zip(names, args, strict=True))
        call.kwargs = {key: self._noted(value, key) for key, value in kwargs.items()}
        self._add(call, made)
        if self._keep_gradients:
            own = _own_loss(made)
            for slot in (own,) if own is not None else range(len(made)):
                if made[slot].requires_grad:
                    made[slot].register_hook(_keeper(call, slot))
            if own is not None:
                self.own_losses.append(made[own].detach())

    def function(self, function: Callable[..., Any], args: Any, kwargs: Any, result: Any) -> None:
        """Write a call of a function of torch, if a gradient can come back through it."""
        made = [tensor for tensor in _tensors(result) if tensor.requires_grad]
        if not made or all(isinstance(tensor, nn.Parameter) for tensor in made):
            return
        if sys._getframe(2).f_code.co_filename.endswith(_SCALER):  # not the author's: the step is played with any scale
            self._scaled[made[0]] = self._noted(args[0], "loss")
            return
        name = spelled(function)
        random = RandomState.now() if any(word in name.rpartition(".")[2] for word in _DRAWS) else None
        short = name.rpartition(".")[2]
        call = Call(None, name, function, (), {}, here(), random)
        call.args = tuple(self._noted(argument, short, call.location) for argument in args)
        call.kwargs = {key: self._noted(value, f"{short}.{key}", call.location) for key, value in kwargs.items()}
        self._add(call, list(_tensors(result)))

    def backward(self, loss: Tensor) -> None:
        """Note that the gradient starts here."""
        scaled: Any = self._scaled.get(loss)
        found = self._made.get(loss) if scaled is None else scaled
        if isinstance(found, Made):
            self.program.goals.append(Goal(found, loss.detach(), scaled is not None))
        else:
            self.program.gaps.append(here())

    def _add(self, call: Call, made: list[Tensor]) -> None:
        number = len(self.program.calls)
        self.program.calls.append(call)
        for slot, tensor in enumerate(made):
            self._made[tensor] = Made(number, slot)

    def _noted(self, argument: Any, name: str, at: Location | None = None) -> Any:
        return mapped(argument, lambda leaf: self._reference(leaf, name, at) if isinstance(leaf, Tensor) else leaf)

    def _reference(self, tensor: Tensor, name: str, at: Location | None) -> Made | Leaf | Own:
        made: Made | None = self._made.get(tensor)
        if made is not None:
            return made
        own = self._names.get(id(tensor))
        if own is not None:
            return Own(own)
        known = self._leaves.get(id(tensor))
        if known is not None:
            return known
        if tensor.grad_fn is not None:  # made by something that cannot be seen here, such as a custom autograd function
            self.program.gaps.append(at)
            tensor = tensor.detach()
        known = self._leaves[id(tensor)] = Leaf(len(self.program.leaves))
        self.program.leaves.append(tensor)
        self.program.versions.append(times_written(tensor))
        self.program.names.append(name)
        return known


class LossMode(TorchFunctionMode):
    """Sees the functions of torch that the author's code calls between the models and `backward`. Never active inside a model,
    so that a compiled one runs as compiled."""

    def __init__(self, tape: Callable[[], Tape | None]) -> None:
        super().__init__()
        self._tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tape = self._tape()
        if tape is None or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return func(*args, **kwargs)
        if func is Tensor.backward or func is torch.autograd.backward:
            for loss in _tensors(args[0]):
                tape.backward(loss)
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        tape.function(func, args, kwargs, result)
        return result

    def leave(self) -> bool:
        """Step aside for a model; whether it could, that is, whether no other mode lies above."""
        return leave_function_mode(self)

    def come_back(self) -> None:
        """After `leave` returned True."""
        enter_function_mode(self)


def spelled(function: Callable[..., Any]) -> str:
    """The name of a function of torch by which `named` finds it again."""
    known = resolve_name(function)
    if known:
        return str(known)
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"


def named(name: str) -> Callable[..., Any]:
    """The function of torch of this name. Raises ValueError for anything that does not lie in torch, or is no function."""
    head, *parts = name.split(".")
    found: Any = torch
    if head != "torch" or any(part.startswith("_") and part != "__get__" and not part.startswith("__") for part in parts):
        raise ValueError(f"a capsule calls functions of torch, not {name}")
    for part in parts:
        found = getattr(found, part, None)
    if not callable(found) or isinstance(found, type):
        raise ValueError(f"this version of torch has no {name}")
    return found  # type: ignore[no-any-return]


def _keeper(call: Call, slot: int) -> Callable[[Tensor], None]:
    def keep(gradient: Tensor) -> None:
        call.gradients[slot] = gradient.detach()

    return keep


def _own_loss(made: list[Tensor]) -> int | None:
    """The slot of the loss that a model computes itself: the only scalar it returns that can be differentiated."""
    scalars = [k for k, t in enumerate(made) if t.requires_grad and t.numel() == 1 and t.is_floating_point()]
    return scalars[0] if len(scalars) == 1 else None


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from _tensors(item)


def _argument_names(module: nn.Module, args: Any) -> list[str]:
    code = getattr(getattr(type(module), "forward", None), "__code__", None)
    known = code.co_varnames[1 : code.co_argcount] if code is not None else ()
    return [known[i] if i < len(known) else f"input{i}" for i in range(len(args))]
