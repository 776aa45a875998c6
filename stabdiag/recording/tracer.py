"""The tracer: every op of forward, loss, backward and optimizer step, as a graph of values with statistics.

A `TorchDispatchMode` sees what modules hide: `F.relu`, `@`, a softmax written by hand, the gates of an LSTM, the ops of the
backward pass. Three facts make the record cheap and complete:

- the value an argument holds is found by where its memory is (address, shape, strides), so no tensor is wrapped or kept;
- the sequence number of the autograd node that an op makes leads every gradient op back to its forward op and source line;
- the gradient of a value is what its autograd node receives, read by a node pre-hook, which replaces nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn

from stabdiag.recording import source, stats
from stabdiag.recording.eager import EagerMode
from stabdiag.recording.facts import Facts
from stabdiag.recording.layout import unit_dim
from stabdiag.recording.module_stack import ModuleStack
from stabdiag.recording.numerical import CHECKED, LinAlgError
from stabdiag.recording.operator import Operator, operator
from stabdiag.recording.torch_private import last_node, number_of, running_node, tree_leaves
from stabdiag.recording.unfused import unfused_recurrence
from stabdiag.rule import Measurement
from stabdiag.trace import DISCRETE, Op, Run, Stats, Value
from stabdiag.trace.ops import base_name

Execute = Callable[[Any, Operator, Sequence[Any], dict[str, Any]], Any]
"""Runs one op: `(func, operator, args, kwargs) -> result`. Emulation and replayed randomness wrap the plain call."""

_Key = tuple[Any, ...]


def plain(func: Any, info: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run the op as it is."""
    return func(*args, **kwargs)


class Tracer(EagerMode):
    """Records into `run` what happens while it is entered. One tracer records one batch.

    Args:
        model: whose modules, parameters and buffers are named.
        run: filled in place.
        execute: how an op is run.
        measurements: what rules want recorded at which ops.
        compare: called as `compare(op, value, tensor)` for every measured result; sets `value.error` or keeps a sample.
        statistics: False records the graph, and what `compare` finds, only.
    """

    def __init__(
        self,
        model: nn.Module,
        run: Run,
        *,
        execute: Execute = plain,
        measurements: Iterable[Measurement] = (),
        compare: Callable[[Op, Value, Tensor], None] | None = None,
        statistics: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.run = run
        self.phase = "forward"
        self.differentiating: Op | None = None  # the op whose gradient autograd works out, the one at fault when that raises
        self.modules = ModuleStack(model)
        self.facts = Facts(measurements)
        self._execute = execute
        self._compare = compare
        self._statistics = statistics
        self.last: tuple[str, list[Tensor]] = ("", [])
        """The op that ran last, or raised, and what it was given."""
        self._known: dict[_Key, int] = {}
        self._detached: dict[_Key, int] = {}  # same memory, but the author (or autograd's saved outputs) cut the gradient
        self._written: dict[int, tuple[int, _Key]] = {}
        self._layers: list[str] = []
        self._op_of_sequence: dict[int, int] = {}
        self._owner = {id(p): path for path, m in model.named_modules() for p in m.parameters(recurse=False)}
        self._parameter_layer: dict[int, str] = {}
        self._context = ExitStack()
        for name, parameter in model.named_parameters():
            self.leaf(parameter, "parameter", name)
        for name, buffer in model.named_buffers():
            self.leaf(buffer, "buffer", name)

    # -- values ---------------------------------------------------------------------------------------------------------

    def leaf(self, tensor: Tensor, kind: str, name: str) -> int:
        """Register a tensor that no traced op made."""
        value_id = self._new_value(kind, name, None, tensor)
        if self._statistics and kind in ("input", "buffer", "constant") and self.phase != "backward":
            self.run.values[value_id].stats = cast("Stats | None", stats.measure(tensor))
        if kind == "parameter":
            owner = name.rpartition(".")[0]
            head, found, _ = owner.partition("parametrizations.")
            self._parameter_layer[value_id] = head.rstrip(".") if found else owner
            self.run.values[value_id].unit_dim = None
        key = _key(tensor)
        if key is not None:
            self._known[key] = value_id
        return value_id

    def _new_value(self, kind: str, name: str, op: int | None, tensor: Tensor) -> int:
        values = self.run.values
        shape: tuple[int, ...] = tuple(tensor.shape)
        if not stats.has_memory(tensor):  # the lengths of a nested tensor are no numbers
            shape = tuple(n if isinstance(n, int) else -1 for n in shape)
        values.append(Value(kind, name, op, str(tensor.dtype)[6:], shape))
        self._layers.append("")
        return len(values) - 1

    def value_of(self, tensor: Tensor) -> int | None:
        """The id of the value a tensor holds, None when it was never seen."""
        key = _key(tensor)
        if key is None:
            return None
        known = self._known.get(key)
        if (
            not tensor.requires_grad
            and (detached := self._detached.get(key)) is not None
            and (known is None or detached > known)
        ):
            known = detached
        if self._written:
            written = self._written.get(tensor.untyped_storage().data_ptr())
            if written is not None and (known is None or (written[0] > known and not _siblings(written[1], key))):
                return written[0]
        return known

    def _lookup(self, tensor: Tensor) -> int:
        value_id = self.value_of(tensor)
        if value_id is None:
            value_id = self.leaf(tensor, "constant", "")
        return value_id

    # -- ops ------------------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        info = operator(func)
        if not info.traced or (self.phase == "backward" and info.name == "detach"):
            return func(*args, **kwargs)
        tensors, attributes = _arguments(info, args, kwargs)
        if info.name != "detach":  # autograd saves an output before it is checked
            self.last = (info.name, tensors)
        inputs = [self._lookup(t) for t in tensors]
        wanted = self.facts.wanted(base_name(info.name), self.phase)
        if info.mutates and any(m.reads_inputs for m in wanted):
            tensors = [t.clone() for t in tensors]
        if info.mutates:
            stats.launch(before_writing=_written(info, args))
        try:
            result = self._execute(func, info, args, kwargs)
        except Exception as error:
            if info.name in CHECKED or isinstance(error, LinAlgError):
                self._record(info, inputs, attributes)  # what raised because of its numbers belongs in the record
            raise
        op = self._record(info, inputs, attributes)
        op.tracked = any(t.requires_grad for t in tensors)
        outputs = [result] if isinstance(result, Tensor) else [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        if not outputs and info.mutates:  # foreach ops return nothing and write lists
            outputs = list(_written(info, args))
        self._results(op, info, outputs)
        if wanted and outputs:
            self.facts.measure(wanted, self.run, op, tensors, outputs[0], self.run.values[op.outputs[0]].unit_dim)
        return result

    def _record(self, info: Operator, inputs: list[int], attributes: dict[str, Any]) -> Op:
        run = self.run
        forward: int | None = None
        location = None
        if self.phase == "backward":
            node = running_node()
            forward = self._op_of_sequence.get(node) if node is not None else None
        if forward is not None:
            of = run.ops[forward]
            module, module_type, call, location = of.module, of.module_type, of.call, of.location
        else:
            module, module_type, call = self.modules.top
            location = source.here()
        op = Op(
            len(run.ops),
            base_name(info.name),
            self.phase,
            module,
            module_type,
            call,
            "",
            location,
            inputs,
            [],
            attributes,
            info.view,
            forward,
            recording=torch.is_grad_enabled(),
        )
        run.ops.append(op)
        if forward is not None:
            op.layer = run.ops[forward].layer
        else:
            self._op_of_sequence.setdefault(last_node(), op.index)
            op.layer = self._layer(inputs)
        return op

    def _layer(self, inputs: list[int]) -> str:
        latest, layer = -1, ""
        for value_id in inputs:
            owner = self._parameter_layer.get(value_id)
            if owner is not None:
                return owner
            if value_id > latest and self._layers[value_id]:
                latest, layer = value_id, self._layers[value_id]
        return layer

    def _results(self, op: Op, info: Operator, outputs: list[Tensor]) -> None:
        values = self.run.values
        known_inputs = [(values[i].shape, values[i].unit_dim) for i in op.inputs]
        parameter_view = info.view and len(op.inputs) > 0 and op.inputs[0] in self._parameter_layer
        for slot, tensor in enumerate(outputs):
            value_id = self._new_value("result", "", op.index, tensor)
            value = values[value_id]
            op.outputs.append(value_id)
            self._layers[value_id] = op.layer
            if parameter_view:
                self._parameter_layer[value_id] = self._parameter_layer[op.inputs[0]]
            key = _key(tensor)
            if key is not None:
                (self._detached if info.name == "detach" else self._known)[key] = value_id
                if info.mutates:
                    self._written[tensor.untyped_storage().data_ptr()] = value_id, key
            if not tensor.dtype.is_floating_point:
                if self._compare is not None and info.name in DISCRETE:
                    self._compare(op, value, tensor)
                continue
            value.unit_dim = unit_dim(info.name, value.shape, known_inputs, op.attributes)
            if not info.made or (info.results is not None and slot >= info.results):
                continue
            if self._statistics and info.view and op.inputs and _same_elements(shown := values[op.inputs[0]], value):
                value.stats = shown.stats
            elif self._statistics and (not info.view or info.name == "_to_copy"):
                value.stats = cast("Stats | None", stats.measure(tensor))  # Pending on CUDA until the run is over
            if self._compare is not None and (not info.view or info.name == "_to_copy"):
                self._compare(op, value, tensor)

    # -- gradients --------------------------------------------------------------------------------------------------------

    def watch_gradients(self, loss: Tensor) -> None:
        """Read the gradient of every value on the way to the loss as its autograd node receives it."""
        seen: set[Any] = set()
        stack = [loss.grad_fn]
        while stack:
            node = stack.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            index = self._op_of_sequence.get(number_of(node))
            if index is not None:
                node.register_prehook(self._gradient_hook(index))
            stack.extend(n for n, _ in node.next_functions)

    def _gradient_hook(self, index: int) -> Callable[[Any], None]:
        def read(gradients: Any) -> None:
            self.differentiating = op = self.run.ops[index]
            for value_id, gradient in zip(op.outputs, gradients, strict=False):
                value = self.run.values[value_id]
                if isinstance(gradient, Tensor) and value.gradient is None:
                    value.gradient = self.stats_of(gradient)

        return read

    def stats_of(self, tensor: Tensor) -> Any:
        """Statistics of a tensor, those of its value where it was measured already."""
        value_id = self.value_of(tensor)
        if value_id is not None:
            value = self.run.values[value_id]
            if value.stats is not None and value.shape == tuple(tensor.shape):
                return value.stats
        measured = stats.measure(tensor)
        if value_id is not None:
            self.run.values[value_id].stats = cast("Stats | None", measured)
        return measured

    # -- context ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Tracer:
        self._context.enter_context(self.modules.following())
        self._context.enter_context(unfused_recurrence())
        self._context.enter_context(_collecting_seldom())
        super().__enter__()  # type: ignore[no-untyped-call, unused-ignore]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call, unused-ignore]
        self._context.close()
        self.facts.settle()
        for value in self.run.values:
            value.stats = None if value.stats is None else stats.resolve(value.stats)
            value.gradient = None if value.gradient is None else stats.resolve(value.gradient)


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Let Python look for reference cycles less often: the record only grows, and each look walks through all of it.

    With the usual thresholds the cost per op doubles from 300 to 30,000 ops.
    """
    thresholds = gc.get_threshold()
    if thresholds[0]:
        gc.set_threshold(max(100_000, thresholds[0]), *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def _same_elements(a: Value, b: Value) -> bool:
    return a.dtype == b.dtype and prod(a.shape) == prod(b.shape)


def _key(tensor: Tensor) -> _Key | None:
    try:
        address = tensor.data_ptr()
    except RuntimeError:  # meta, sparse, functional: no memory of their own
        return None
    if not address:
        return None
    return (address, tensor.dtype, tensor.shape, tensor.stride())


def _siblings(a: _Key, b: _Key) -> bool:
    """Whether two views of one storage are parts of a chunk or split: same sizes and strides, different addresses. What is
    written to one is not written to the other (the gates of a recurrent cell)."""
    return bool(a[0] != b[0] and a[1:] == b[1:])


def _written(info: Operator, args: Sequence[Any]) -> Iterator[Tensor]:
    """The tensors that an op overwrites, also those in lists."""
    return (t for i in info.mutates for t in tree_leaves(args[i] if i < len(args) else ()) if isinstance(t, Tensor))


def _arguments(info: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[list[Tensor], dict[str, Any]]:
    """Split the arguments of an op into tensors and plain attributes by schema name."""
    tensors: list[Tensor] = []
    attributes: dict[str, Any] = {}
    for name, argument in (*zip(info.arguments, args, strict=False), *kwargs.items()):
        if isinstance(argument, Tensor):
            tensors.append(argument)
        elif argument is None:
            continue
        elif isinstance(argument, (bool, int, float, str)):
            attributes[name] = argument
        elif isinstance(argument, (list, tuple)):
            inner = [a for a in argument if isinstance(a, Tensor)]
            if inner:
                tensors.extend(inner)
            elif all(isinstance(a, (bool, int, float)) for a in argument):
                attributes[name] = list(argument)
        elif isinstance(argument, torch.dtype):
            attributes[name] = str(argument)[6:]
    return tensors, attributes
