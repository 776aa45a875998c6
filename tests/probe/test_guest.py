"""The model is left bit for bit as found."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from stabdiag.probe.guest import as_found
from tests.probe.recording import record


class Rude(nn.Module):
    """Keeps state, mutates a teacher, draws random numbers, switches modes, leaves hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc, self.teacher = nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.fc.weight.data[0] = float("nan")
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.handle = self.fc.register_forward_hook(lambda m, i, o: None)
        self.memory: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        self.memory = x
        self.teacher.weight.data.mul_(0.9)
        self.eval()
        random.random(), np.random.rand(), torch.set_default_dtype(torch.float64)
        self.fc.register_forward_pre_hook(lambda m, i: None)
        return self.fc(nn.functional.dropout(self.norm(x), 0.5, True)) + self.teacher(x)


def snapshot(model: nn.Module) -> dict[str, bytes]:
    return {n: t.detach().numpy().tobytes() for n, t in model.state_dict().items()}


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16", "float64", "amp-bfloat16"])
def test_nothing_is_changed(precision: str) -> None:
    torch.manual_seed(3)
    model = Rude().train()
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    before, identities = snapshot(model), {n: id(p) for n, p in model.named_parameters()}
    state, python_state, numpy_state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
    record(model, torch.randn(8, 4), precision=precision)
    torch.set_rng_state(state)
    assert snapshot(model) == before
    assert {n: id(p) for n, p in model.named_parameters()} == identities
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert model.training and model.fc.training
    assert model.memory is None
    assert torch.equal(model.fc.weight.grad, torch.ones(4, 4))
    assert len(model.fc._forward_pre_hooks) == 0 and len(model.fc._forward_hooks) == 1
    assert random.getstate() == python_state
    assert (np.random.get_state()[1] == numpy_state).all()
    assert torch.get_default_dtype() == torch.float32
    model.handle.remove()
    assert len(model.fc._forward_hooks) == 0


def test_restored_after_an_exception() -> None:
    model = nn.Linear(3, 3)
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="on purpose"), as_found(model, torch.float16):
        model.weight.data.zero_()
        raise RuntimeError("on purpose")
    assert snapshot(model) == before and model.weight.dtype == torch.float32


def test_tied_parameters_and_shared_buffers_stay_tied_while_cast() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    model["b"].weight = model["a"].weight
    shared = torch.arange(3.0)
    model["a"].register_buffer("scale", shared)
    model["b"].register_buffer("scale", shared)
    with as_found(model, torch.bfloat16):
        assert model["a"].weight is model["b"].weight
        assert model["a"].weight.dtype == torch.bfloat16
        assert model["a"].scale is model["b"].scale
    assert model["a"].scale is shared and model["b"].scale is shared
