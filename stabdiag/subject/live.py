"""A live model as a Subject: what the Python API scans."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch import nn

from stabdiag.subject import objective
from stabdiag.subject.inputs.sources import find_inputs
from stabdiag.subject.seeds import seeded
from stabdiag.subject.subject import Subject, SubjectError
from stabdiag.subject.weights import stored
from stabdiag.trace import SubjectFacts


def live(model: nn.Module, inputs: Any = None, loss: Any = None) -> Subject:
    """A Subject around a model that is at hand.

    Args:
        model: probed in train mode, left as found.
        inputs: a tensor, a tuple of positional or a dict of keyword arguments, or a function that
            returns one; None infers them.
        loss: `loss(output) -> scalar`; None infers the objective.

    Raises:
        SubjectError: when the model is no module, or inputs and loss do not fit it.
    """
    if not isinstance(model, nn.Module):
        raise SubjectError(
            f"scan() was given {type(model).__name__}; expected an nn.Module or the path of a model file.", "usage"
        )
    name = type(model).__name__
    source_file = ModuleType(name)
    if inputs is not None:
        source_file.example_inputs = inputs if callable(inputs) else lambda: inputs  # type: ignore[attr-defined]
    with seeded(0):
        source = find_inputs(model, source_file, name, [], None)
        if source.broke:
            goal = objective.unseen(loss, model)
        elif loss is not None:
            goal = objective.declared(loss, source.output)
        else:
            goal = objective.chosen(source.output, source.batch(0), model)
    facts = SubjectFacts(
        path=name,
        name=name,
        parameters=sum(p.numel() for p in model.parameters()),
        stored=stored(model),
        inputs=source.text,
        objective=goal.name,
        how={"model": "given", "inputs": "given" if inputs is not None else source.why, "objective": goal.why},
        declared=[what for what, present in (("inputs", source.declared), ("loss", goal.declared)) if present],
    )
    return Subject(model, source.batch, goal.loss, facts, source.batches)
