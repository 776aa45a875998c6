"""A capsule played again: another process, another machine, every precision, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from stabdiag import __version__
from stabdiag.errors import UserError
from stabdiag.judging.report import Report
from stabdiag.live import capsule, examination
from stabdiag.live.culprit import Kind, culprit
from stabdiag.live.optimizer_step import born
from stabdiag.subject.build import build
from stabdiag.subject.choose import choose
from stabdiag.subject.importing import import_target, parse_target
from stabdiag.subject.seeds import seeded
from stabdiag.subject.subject import SubjectError


def replay(place: Path, target: str | None = None, arguments: dict[str, Any] | None = None) -> Report:
    """Play the step of a capsule again and judge it in every precision.

    Args:
        place: the folder; target: `FILE.py:Name` of the model, None for the file named in the capsule.
        arguments: for the model's constructor, beside those that the capsule knows.

    Raises:
        UserError: there is no capsule, no model, or another model than the one that was trained.
    """
    document = capsule.facts_of(place)
    trip = document["trip"]
    model = _model(trip["model"], target, arguments or {})
    case = capsule.read(place, document, model)
    if trip["culprit"] == Kind.OPTIMIZER:
        found = _optimizers(place, document, case.player.gradients(), model)
    else:
        case.player = examination.first_wrong(case.player)
        found = culprit(case)
    trace = examination.examined(case.player, torch.device("cpu"))
    facts = {key: value for key, value in trip.items() if key not in ("finding", "culprit", "model", "last")}
    return Report(__version__, [examination.report(trace, case, found, facts | {"grown": None})])


def _model(known: dict[str, Any], target: str | None, arguments: dict[str, Any]) -> nn.Module:
    """The model of the target, else of the capsule's file, with arguments that the trained one was seen to have."""
    if target is None and (known["file"] is None or not Path(known["file"]).is_file()):
        raise UserError(
            f"the model is a {known['name']} whose file is not here ({known['file']}); name it: "
            "stabdiag replay CAPSULE FILE.py:Name"
        )
    taken = parse_target(target or f"{known['file']}:{known['name']}")
    try:
        with seeded(0):
            module = import_target(taken)
            choice = choose(module, str(taken.path or taken.module), taken.name, arguments)
            if choice.instance is not None:
                return choice.instance
            assert choice.target is not None
            given = known["arguments"] if target is None or choice.name == known["name"] else {}
            return build(choice.target, choice.name, module, given | arguments)
    except SubjectError as error:
        raise UserError(f"the capsule's model cannot be built: {error}") from error


def _optimizers(place: Path, document: dict[str, Any], gradients: dict[str, torch.Tensor], model: nn.Module) -> Any:
    number = document["trip"]["optimizer"]
    optimizer = capsule.optimizer_of(place, document, number, model)
    if optimizer is None:
        raise UserError(
            f"the weights broke in the step of {document['optimizers'][number]['name']}, which is not one of torch's own "
            "optimizers: this can be run again in the training only"
        )
    for name, parameter in model.named_parameters():
        parameter.grad = gradients.get(name)
    return born(optimizer, model, {name: p.detach().clone() for name, p in model.named_parameters()})
