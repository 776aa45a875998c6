"""Recording a tape while a script runs: torch's functions by a function mode, calls of modules as single nodes."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stabdiag.recording.source import here
from stabdiag.recording.torch_private import leave
from stabdiag.subject.capture.tape import Given, Loss, Made, Node, Tape
from stabdiag.subject.capture.trees import mapped, tensors_in
from stabdiag.trace import Location

_BACKWARD = (Tensor.backward, torch.autograd.backward)
_IN_PLACE = (
    "__setitem__",
    "__iadd__",
    "__isub__",
    "__imul__",
    "__itruediv__",
    "__imatmul__",
    "__ipow__",
    "__ior__",
    "__iand__",
)
# Functions that move, select or convert data without computing with it.
_MOVES = frozenset({
    "__getitem__", "index_select", "stack", "cat", "concat", "to", "float", "double", "long", "clone", "view", "reshape",
    "unsqueeze", "squeeze", "flatten", "permute", "transpose", "contiguous", "detach", "gather", "take", "narrow", "chunk",
    "split", "unbind", "pin_memory", "cuda", "cpu", "expand", "repeat", "as_tensor", "tensor", "t", "type",
})  # fmt: skip


class TapeRecorder(TorchFunctionMode):
    """Writes a tape of what depends on parameters, in the thread that made it. Switched on by `start`, off by `stop`.

    A computation that depends on no parameter (shuffling, augmentation, noise, targets under no_grad) is not repeated: its
    results are leaves of the tape, as the batch is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tape = Tape()
        self.lines: dict[int, Location | None] = {}  # of leaves: the line that computed them
        self.buffers: dict[int, tuple[Tensor, Tensor]] = {}  # of modules: what they held before their first call
        self.owned: dict[int, Tensor] = {}  # what optimizers step, by identity
        self._values: dict[int, Made] = {}
        self._given: dict[int, Given] = {}
        self._kept: list[Tensor] = []
        self._where: dict[int, tuple[weakref.ref[Tensor], Location | None]] = {}
        self._inside = 0
        self._thread = threading.get_ident()
        self._on = False

    # -- on and off -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a new tape."""
        self.tape, self._values, self._given, self._kept = Tape(), {}, {}, []
        self.lines, self.buffers, self._where, self._inside = {}, {}, {}, 0
        if not self._on:
            self._on = True
            self.__enter__()  # type: ignore[no-untyped-call]
            self._call, nn.Module.__call__ = nn.Module.__call__, _calling(self, nn.Module.__call__)  # type: ignore[method-assign]
            self._apply = torch.autograd.Function.__dict__["apply"]
            torch.autograd.Function.apply = classmethod(_applying(self, self._apply.__func__))  # type: ignore[assignment]

    def stop(self) -> Tape:
        """End the tape."""
        if self._on:
            self._on = False
            nn.Module.__call__ = self._call  # type: ignore[method-assign]
            torch.autograd.Function.apply = self._apply  # type: ignore[method-assign]
            leave(self)
        tape, self._values, self._kept = self.tape, {}, []
        return tape

    @property
    def _listening(self) -> bool:
        return self._on and not self._inside and threading.get_ident() == self._thread

    # -- what is recorded -----------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self._listening or func in _BACKWARD:
            return func(*args, **kwargs)
        return self.called(func, args, kwargs)

    def called(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call and write it down where its result depends on a parameter."""
        self._inside += 1
        try:
            return self._written_down(call, args, kwargs)
        finally:
            self._inside -= 1

    def _written_down(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = isinstance(call, nn.Module)
        name = getattr(call, "__name__", "")
        mutates = not module and (name in _IN_PLACE or (name.endswith("_") and not name.startswith("__")))
        mutates = mutates and bool(args) and isinstance(args[0], Tensor)
        if not self._active(call, args, kwargs) or (mutates and isinstance(args[0], nn.Parameter)):
            result = call(*args, **kwargs)
            self._note_origin(name, args, result)
            return result
        if isinstance(call, nn.Module):
            for buffer in call.buffers():
                if id(buffer) not in self.buffers:
                    self.buffers[id(buffer)] = buffer, buffer.detach().clone()
        names = _argument_names(call, args) if isinstance(call, nn.Module) else None
        random = (
            torch.get_rng_state()
            if module or "drop" in name or "rand" in name or name in ("multinomial", "bernoulli")
            else None
        )
        taken = [mapped(a, lambda t, n=n: self._reference(t, n)) for a, n in zip(args, names or [""] * len(args), strict=True)]  # type: ignore[misc]
        named = {key: mapped(value, lambda t, n=key: self._reference(t, n)) for key, value in kwargs.items()}  # type: ignore[misc]
        result = call(*args, **kwargs)
        made = [args[0]] if mutates else list(tensors_in(result))
        if not made:
            return result
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        node = Node(
            call, tuple(taken), named, here(past_ours=True), mutates, torch.is_grad_enabled(), random, dtype, _storages(made)
        )
        self.tape.nodes.append(node)
        for slot, tensor in enumerate(made):
            self._values[id(tensor)] = Made(len(self.tape.nodes) - 1, slot)
            self._kept.append(tensor)
        return result

    def _note_origin(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """Remember the line that made data; what only moves or selects it keeps the line of its source."""
        at: Location | None = None
        source = next(tensors_in(args), None) if name in _MOVES else None
        if source is not None:
            at = self._origin(source)
        for tensor in tensors_in(result):
            if at is None:
                at = here(past_ours=True)
            self._where[id(tensor)] = weakref.ref(tensor), at

    def _origin(self, tensor: Tensor) -> Location | None:
        known, at = self._where.get(id(tensor), (None, None))
        return at if known is not None and known() is tensor else None

    def _active(self, call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a result depends on a parameter or on something that is differentiated."""
        if isinstance(call, nn.Module) and next(call.parameters(), None) is not None:
            return torch.is_grad_enabled()
        return any(t.requires_grad or id(t) in self._values for t in tensors_in((args, kwargs)))

    def _reference(self, tensor: Tensor, name: str) -> Any:
        if (made := self._values.get(id(tensor))) is not None:
            return made
        if isinstance(tensor, nn.Parameter) or (tensor.is_leaf and tensor.requires_grad and id(tensor) in self.owned):
            return tensor
        if (given := self._given.get(id(tensor))) is None:
            given = self._given[id(tensor)] = Given(len(self.tape.leaves))
            copy = tensor.detach().clone().requires_grad_(tensor.requires_grad and tensor.is_leaf)
            self.tape.leaves.append(copy)
            self.tape.names.append(name)
            self._kept.append(tensor)
            self.lines[id(copy)] = self._origin(tensor)
        return given

    # -- losses ---------------------------------------------------------------------------------------------------------

    def differentiated(self, tensors: Any, gradients: Any, later: bool) -> Loss | None:
        """Note what backward() was called on, `later` than an optimizer's step; None where it is not on the tape."""
        several = list(tensors) if isinstance(tensors, list | tuple) else [tensors]
        given = list(gradients) if isinstance(gradients, list | tuple) else [gradients] * len(several)
        found: list[tuple[Made, Tensor | None]] = []
        total = 0.0
        for tensor, gradient in zip(several, given, strict=True):
            made = self._values.get(id(tensor))
            if made is None:
                return None
            found.append((made, None if gradient is None or tensor.numel() == 1 else gradient.detach().clone()))
            total += float((tensor if found[-1][1] is None else tensor * gradient).detach().sum())
        loss = Loss(found, here(past_ours=True), total, later)
        self.tape.losses.append(loss)
        return loss

    def same(self, tensor: Any, as_tensor: Any) -> None:
        """Let one tensor stand for another: a loss that a scaler multiplied is the loss."""
        if isinstance(tensor, Tensor) and (made := self._values.get(id(as_tensor))) is not None:
            self._values[id(tensor)] = made
            self._kept.append(tensor)

    def name_leaves(self, variables: dict[int, str]) -> None:
        """Give leaves the names of the author's variables."""
        for identity, given in self._given.items():
            if identity in variables:
                self.tape.names[given.leaf] = variables[identity]


def _calling(recorder: TapeRecorder, original: Any) -> Any:
    def __call__(self: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        if not recorder._listening:
            return original(self, *args, **kwargs)
        return recorder.called(self, args, kwargs)

    return __call__


def _applying(recorder: TapeRecorder, original: Any) -> Any:
    def apply(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if not recorder._listening:
            return original(cls, *args, **kwargs)
        return recorder.called(cls.apply, args, kwargs)

    return apply


def _argument_names(module: nn.Module, args: tuple[Any, ...]) -> list[str]:
    code = getattr(type(module).forward, "__code__", None)
    names = list(code.co_varnames[1 : code.co_argcount]) if code is not None else []
    return [*names, *[""] * len(args)][: len(args)]


def _storages(tensors: list[Tensor]) -> tuple[int, ...]:
    found = []
    for tensor in tensors:
        try:
            found.append(tensor.untyped_storage().data_ptr())
        except (RuntimeError, NotImplementedError):
            continue
    return tuple(found)
