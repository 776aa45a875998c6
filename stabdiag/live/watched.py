"""What is watched: one model or several under one root, what their modules and tensors are called, where their code is."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stabdiag.live.following import paths_of, wrapped
from stabdiag.live.player import Player
from stabdiag.live.program import Program
from stabdiag.recording.source import callers, shown
from stabdiag.recording.torch_private import times_written
from stabdiag.subject.attributes import attribute
from stabdiag.trace import SubjectFacts

_LIBRARIES = ("torch", "transformers", "lightning", "pytorch_lightning")


class Watched:
    """The models.

    Attributes:
        root: the model without what wraps it; of several a list that holds them.
        paths: of every module by identity, wrappers included; names: of parameters and buffers.
        compiled: compiled modules by the path of what they wrap.
        facts: what a report says of them.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        roots = [wrapped(model) for model in models]
        self.root = roots[0] if len(roots) == 1 else nn.ModuleList(roots)
        self.paths: dict[int, str] = {}
        for k, (model, root) in enumerate(zip(models, roots, strict=True)):
            prefix = f"{k}." if len(roots) > 1 else ""
            self.paths |= {key: f"{prefix}{path}".rstrip(".") for key, path in paths_of(model, root).items()}
        self.names = {id(t): name for name, t in (*self.root.named_parameters(), *self.root.named_buffers())}
        parts = [part for model in models for part in model.modules() if id(part) in self.paths]
        self.compiled: Mapping[str, nn.Module] = {self.paths[id(part)]: part for part in parts if _is_compiled(part)}
        self.facts = _facts(self.root, roots)
        self._moving: list[str] | None = None

    @property
    def device(self) -> str:
        """The type of device they are on."""
        return next((p.device.type for p in self.root.parameters()), "cpu")

    def player(self, program: Program, scale: float) -> Player:
        """What plays a step of theirs."""
        return Player(program, self.root, self.facts, scale)

    def keep_buffers(self, program: Program) -> None:
        """Copy the buffers that forwards move (running statistics); which ones these are, the first step tells."""
        buffers = dict(self.root.named_buffers())
        moving = buffers if self._moving is None else {name: buffers[name] for name in self._moving if name in buffers}
        program.buffers = {name: buffer.detach().clone() for name, buffer in moving.items()}

    def learn_what_moves(self, program: Program) -> None:
        """After the first step: which buffers are no longer what they were."""
        if self._moving is None:
            now = dict(self.root.named_buffers())
            self._moving = [name for name, held in program.buffers.items() if name in now and not _same(held, now[name])]

    def versions(self) -> dict[str, int]:
        """How often each parameter was written."""
        return {name: times_written(p) for name, p in self.root.named_parameters()}

    def file(self) -> dict[str, Any]:
        """The file, class and plain constructor arguments, by which `stabdiag replay` builds the model again."""
        arguments = {}
        for name in inspect.signature(type(self.root).__init__).parameters:
            value = attribute(self.root, name) if name != "self" else None
            if isinstance(value, bool | int | float | str):
                arguments[name] = value
        return {"file": _source(self.root), "name": type(self.root).__qualname__, "arguments": arguments}


def _is_compiled(module: nn.Module) -> bool:
    return attribute(module, "_orig_mod") is not None or attribute(module, "_compiled_call_impl") is not None


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _source(model: nn.Module) -> str | None:
    try:
        return inspect.getsourcefile(type(model))
    except (TypeError, OSError):
        return None


def _facts(root: nn.Module, roots: Sequence[nn.Module]) -> SubjectFacts:
    at = callers(1)
    file = _source(root) if type(root).__module__.split(".")[0] not in _LIBRARIES else None
    path = shown(file) if file is not None else at[0].path if at else type(root).__name__
    return SubjectFacts(
        path=path,
        name=" and ".join(type(model).__name__ for model in roots),
        parameters=sum(p.numel() for p in root.parameters()),
        inputs="the batch of the training",
        objective="the loss of the training",
        declared=["inputs", "loss"],
    )
