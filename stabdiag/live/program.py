"""A training step as data: what was called with what, so that it can be played again without the author's loop."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stabdiag.recording.torch_private import times_written
from stabdiag.trace import Location


@dataclass(frozen=True, slots=True)
class Made:
    """The `slot`-th tensor of what call number `call` returned."""

    call: int
    slot: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """A tensor that no call of the program made: `Program.leaves[index]`."""

    index: int


@dataclass(frozen=True, slots=True)
class Own:
    """A parameter or buffer of the model, by name."""

    name: str


@dataclass(slots=True)
class RandomState:
    """All generators that a forward may draw from: torch's on the CPU and on each CUDA device, Python's, NumPy's."""

    cpu: Tensor
    cuda: list[Tensor]
    python: Any
    numpy: Any

    @classmethod
    def now(cls) -> RandomState:
        """The present state. On CUDA this reads a seed and an offset kept by the host: nothing is synchronised."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
        return cls(torch.get_rng_state(), cuda, random.getstate(), np.random.get_state())

    def restore(self) -> None:
        """Make it the present state; states of devices that are absent here are left out."""
        torch.set_rng_state(self.cpu)
        if self.cuda and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(self.cuda[: torch.cuda.device_count()])
        random.setstate(self.python)
        np.random.set_state(self.numpy)


@dataclass(slots=True)
class Call:
    """One outermost call of a module of the model, or of one function of torch on the way to the loss.

    Attributes:
        module: path of the module ("" is the model itself), None for a function.
        name: class of the module, or the function as `torch.overrides` spells it.
        function: the function itself; None for modules.
        args, kwargs: with Made, Leaf and Own in place of tensors.
        location: the author's line.
        random: generators on entry, None where nothing can be drawn.
        gradients: what reached the output tensors, by slot; kept only where the loss is not seen.
    """

    module: str | None
    name: str
    function: Callable[..., Any] | None
    args: Any
    kwargs: Any
    location: Location | None = None
    random: RandomState | None = None
    gradients: dict[int, Tensor] = field(default_factory=dict)


@dataclass(slots=True)
class Goal:
    """A tensor that `backward` was called on.

    Attributes:
        value: where it comes from; loss: what it held, not copied; scaled: a GradScaler multiplied it before.
    """

    value: Made
    loss: Tensor
    scaled: bool = False


@dataclass
class Program:
    """What led to one optimizer step.

    Attributes:
        calls: in order; leaves: tensors from outside (batch, targets, noise), not copied; names: what to call each.
        versions: of the leaves when they were read: one that was overwritten since cannot be played again.
        goals: the losses, one per `backward`; empty where the loss is computed out of sight.
        buffers: by name, what the model's moving buffers held before the step.
        autocast: the dtype of the author's autocast region, None without one; device: the type of device it ran on.
        gaps: the author's lines where something was computed that cannot be played again.
    """

    calls: list[Call] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    autocast: torch.dtype | None = None
    device: str = "cpu"
    gaps: list[Location | None] = field(default_factory=list)

    @property
    def seen(self) -> bool:
        """Whether the loss can be played again."""
        return bool(self.goals) and not self.gaps

    @property
    def overwritten(self) -> list[str]:
        """Leaves that the author's code has written since."""
        now = zip(self.names, self.leaves, self.versions, strict=True)
        return [name for name, tensor, version in now if times_written(tensor) != version]

    @property
    def distinct_names(self) -> list[str]:
        """What to call each leaf, a number behind those that come again."""
        counts: dict[str, int] = {}
        found = []
        for name in self.names:
            counts[name] = counts.get(name, 0) + 1
            found.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
        return found

    @property
    def batch(self) -> int | None:
        """How many samples the step has: the first size of the first tensor that a module was called with."""
        for call in self.calls:
            if call.module is not None:
                for part in leaves_of((call.args, call.kwargs)):
                    if isinstance(part, Leaf) and self.leaves[part.index].dim():
                        return self.leaves[part.index].shape[0]
        return None

    def with_rows(self, rows: Tensor) -> list[Tensor]:
        """The leaves with these rows of the batch in place of all of them. What has another first size is not of the batch."""
        size = self.batch
        return [t.index_select(0, rows.to(t.device)) if t.dim() and t.shape[0] == size else t for t in self.leaves]


def mapped(tree: Any, change: Callable[[Any], Any]) -> Any:
    """A nested argument with `change` applied to everything that is no container. Mappings become dicts."""
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(mapped(item, change) for item in tree))
    if isinstance(tree, (list, tuple)):
        items = [mapped(item, change) for item in tree]
        return items if isinstance(tree, list) else tuple(items)
    if isinstance(tree, Mapping):
        return {key: mapped(item, change) for key, item in tree.items()}
    if isinstance(tree, slice):
        return slice(*(mapped(item, change) for item in (tree.start, tree.stop, tree.step)))
    return change(tree)


def leaves_of(tree: Any) -> Iterator[Any]:
    """Everything in a nested argument that is no container."""
    if isinstance(tree, (list, tuple)):
        for item in tree:
            yield from leaves_of(item)
    elif isinstance(tree, Mapping):
        for item in tree.values():
            yield from leaves_of(item)
    else:
        yield tree
