"""The tape: what a script computed between its batch and its loss, as calls that can be made again on other tensors.

A call of one of the author's modules is a single node: its own code runs again each time it is played. What the loop computes
around the modules is kept function by function. Python's decisions in the loop are those of the captured step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from stabdiag.recording import source
from stabdiag.subject.capture.trees import mapped, tensors_in
from stabdiag.subject.subject import Returned
from stabdiag.trace import Location


@dataclass(frozen=True, slots=True)
class Made:
    """In the place of a tensor that a node made: which node, and which of its tensors."""

    node: int
    slot: int


@dataclass(frozen=True, slots=True)
class Given:
    """In the place of a tensor that came from outside: which of the tape's leaves."""

    leaf: int


@dataclass(slots=True)
class Node:
    """One call.

    Attributes:
        call: a torch function, or a module of the author's.
        args, kwargs: as they were given, with Made and Given in the place of tensors; parameters stand for themselves.
        location: the author's line.
        mutates: it writes its first argument, which is then its first tensor.
        recorded: autograd was recording.
        random: state of the CPU generator before the call, None where it draws nothing from it.
        autocast: dtype of the autocast region it ran in, None outside of any.
        storages: addresses of the memory of its tensors.
        frozen: parameters that get no gradient through this call, because their optimizer drops it.
    """

    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    location: Location | None
    mutates: bool = False
    recorded: bool = True
    random: Tensor | None = None
    autocast: torch.dtype | None = None
    storages: tuple[int, ...] = ()
    frozen: list[Tensor] = field(default_factory=list)

    @property
    def is_model(self) -> bool:
        """Whether it calls a module with parameters."""
        return isinstance(self.call, nn.Module) and next(self.call.parameters(), None) is not None


@dataclass(slots=True)
class Loss:
    """What `backward()` was called on.

    Attributes:
        of: the tensors, each with the gradient it was given (None for a scalar's own 1).
        location: the line that called backward().
        value: the sum that was differentiated, as the script had it.
        later: an optimizer stepped between the beginning of the tape and it, so that played again it has another value.
        into: identities of the parameters whose gradients an optimizer took from it; None for all.
    """

    of: list[tuple[Made, Tensor | None]]
    location: Location | None
    value: float
    later: bool = False
    into: set[int] | None = None


@dataclass
class Tape:
    """Nodes in the order of their calls, the leaves they start from, and the losses they lead to."""

    nodes: list[Node] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)

    def play(self, leaves: Sequence[Tensor], returned: Returned, *, as_recorded: bool = False) -> list[Tensor]:
        """The losses, computed again from other leaves.

        Args:
            leaves: in the place of the tape's own.
            returned: called with what each model of the author's returns.
            as_recorded: with the random draws and the autocast regions of the captured step, to compare with it.
        """
        made: list[list[Tensor]] = []

        def resolve(reference: Made | Given) -> Tensor:
            return leaves[reference.leaf] if isinstance(reference, Given) else made[reference.node][reference.slot]

        differentiates = any(node.call is torch.autograd.grad for node in self.nodes)
        with torch.enable_grad() if differentiates else nullcontext():
            for node in self.nodes:
                args = mapped(node.args, resolve, (Made, Given))
                kwargs = mapped(node.kwargs, resolve, (Made, Given))
                result = _called(node, args, kwargs, as_recorded)
                made.append([args[0]] if node.mutates else list(tensors_in(result)))
                if node.is_model:
                    returned(result)
            losses = []
            for loss in self.losses:
                with source.standing_at(loss.location):
                    terms = [
                        value.reshape(()) if gradient is None else (value * gradient.to(value)).sum()
                        for value, gradient in ((resolve(reference), gradient) for reference, gradient in loss.of)
                    ]
                    losses.append(added(terms))
        return losses

    def pruned(self) -> Tape:
        """Only what leads to a loss, and only for the parameters whose optimizer takes its gradient."""
        writers: dict[int, list[int]] = {}
        for index, node in enumerate(self.nodes):
            if node.mutates:
                for storage in node.storages:
                    writers.setdefault(storage, []).append(index)
        reached: dict[int, set[int] | None] = {}
        for loss in self.losses:
            seen: set[int] = set()
            todo = [reference.node for reference, _ in loss.of]
            while todo:
                index = todo.pop()
                if index in seen:
                    continue
                seen.add(index)
                node = self.nodes[index]
                todo += [reference.node for reference in references(node) if isinstance(reference, Made)]
                todo += [writer for storage in node.storages for writer in writers.get(storage, ())]
            for index in seen:
                before = reached.get(index, set())
                reached[index] = None if before is None or loss.into is None else before | loss.into
        return self._kept(sorted(reached), reached)

    def _kept(self, indices: list[int], into: dict[int, set[int] | None]) -> Tape:
        position = {old: new for new, old in enumerate(indices)}
        used = sorted({r.leaf for i in indices for r in references(self.nodes[i]) if isinstance(r, Given)})
        leaf = {old: new for new, old in enumerate(used)}

        def moved(reference: Made | Given) -> Made | Given:
            return (
                Given(leaf[reference.leaf]) if isinstance(reference, Given) else Made(position[reference.node], reference.slot)
            )

        nodes = []
        for index in indices:
            node = self.nodes[index]
            node.args = mapped(node.args, moved, (Made, Given))
            node.kwargs = mapped(node.kwargs, moved, (Made, Given))
            wanted = into[index]
            if wanted is not None and isinstance(node.call, nn.Module):
                node.frozen = [p for p in node.call.parameters() if p.requires_grad and id(p) not in wanted]
            nodes.append(node)
        losses = [replace(loss, of=[(Made(position[r.node], r.slot), g) for r, g in loss.of]) for loss in self.losses]
        return Tape(nodes, [self.leaves[i] for i in used], [self.names[i] for i in used], losses)

    @property
    def signature(self) -> list[Any]:
        """What two steps must share to be two batches of the same step."""
        calls = [(id(n.call) if isinstance(n.call, nn.Module) else n.call, n.mutates, references(n)) for n in self.nodes]
        return [calls, [(tuple(t.shape), t.dtype) for t in self.leaves], [[r for r, _ in loss.of] for loss in self.losses]]


def added(terms: Sequence[Tensor]) -> Tensor:
    """The sum of scalars, the only one as it is."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _called(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], as_recorded: bool) -> Any:
    if as_recorded and node.random is not None:
        torch.set_rng_state(node.random)
    for parameter in node.frozen:
        parameter.requires_grad_(False)
    try:
        with ExitStack() as stack:
            stack.enter_context(source.standing_at(node.location))
            if not node.recorded:
                stack.enter_context(torch.no_grad())
            if as_recorded and node.autocast is not None:
                stack.enter_context(torch.autocast("cpu", node.autocast))
            return node.call(*args, **kwargs)
    finally:
        for parameter in node.frozen:
            parameter.requires_grad_(True)


def references(node: Node) -> list[Made | Given]:
    """The tensors that a call takes, in order."""
    found: list[Made | Given] = []

    def note(reference: Made | Given) -> Made | Given:
        found.append(reference)
        return reference

    mapped((node.args, node.kwargs), note, (Made, Given))
    return found
