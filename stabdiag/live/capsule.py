"""A step in a folder: all that is needed to play it again on another machine. Safetensors and JSON, nothing that runs code."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stabdiag import __version__
from stabdiag.errors import UserError
from stabdiag.live.culprit import Case
from stabdiag.live.player import Player
from stabdiag.live.program import Call, Goal, Leaf, Made, Own, Program, RandomState
from stabdiag.recording.torch_private import times_written
from stabdiag.trace import Location, SubjectFacts

SCHEMA = "stabdiag-capsule/v1"
_TENSORS, _FACTS = "tensors.safetensors", "capsule.json"


def write(folder: Path, case: Case, facts: Mapping[str, Any], optimizers: list[torch.optim.Optimizer], keep: int) -> Path:
    """Write a capsule below `folder` and remove all but the newest `keep`.

    Args:
        case: the step, with what it is compared to.
        facts: of the trip and its settings, plain data.
        optimizers: whose state is kept, too.

    Raises:
        UserError: an argument of the model is neither tensor nor plain data, or the disk is full.
    """
    from safetensors.torch import save_file

    player = case.player
    tensors: dict[str, Tensor] = {}
    for name, parameter in player.model.named_parameters():
        tensors[f"parameters/{name}"] = parameter
    for name, buffer in player.model.named_buffers():
        tensors[f"buffers/{name}"] = player.program.buffers.get(name, buffer)
    for name, held in (case.before or {}).items():
        tensors[f"before/{name}"] = held
    document = {
        "schema": SCHEMA,
        "trip": facts,
        "attributes": {path: _attributes(module) for path, module in player.model.named_modules()},
        "subject": _subject(player.facts),
        "scale": player.scale,
        "goals": [player.program.goals.index(goal) for goal in player.goals],
        "program": _program(player.program, "step", tensors),
        "previous": _program(case.previous.program, "previous", tensors) if case.previous is not None else None,
        "case": {"rate": case.rate, "limit": case.limit, "compiled": case.compiled, "written": case.written},
        "optimizers": [_optimizer(optimizer, k, player.model, tensors) for k, optimizer in enumerate(optimizers)],
        "versions": {
            "stabdiag": __version__,
            "torch": torch.__version__,
            "python": sys.version.split()[0],
            "device": torch.cuda.get_device_name() if player.device.type == "cuda" else player.device.type,
        },
    }
    place = folder / f"capsule-{facts['step']:07d}"
    part = place.with_suffix(".part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items() if not t.is_sparse}
        save_file(plain, str(part / _TENSORS))
        (part / _FACTS).write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        part.replace(place)
    except OSError as error:
        raise UserError(f"cannot write the capsule {place}: {error.strerror or error}") from error
    for old in sorted(folder.glob("capsule-*[0-9]"))[:-keep] if keep > 0 else []:
        shutil.rmtree(old, ignore_errors=True)
    return place


def size(place: Path) -> int:
    """Bytes on disk."""
    return sum(file.stat().st_size for file in place.iterdir())


def facts_of(place: Path) -> dict[str, Any]:
    """The plain data of a capsule. Raises UserError when there is none, or another schema."""
    try:
        document: dict[str, Any] = json.loads((place / _FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{place} is not a capsule ({error}); expected a folder with {_FACTS} and {_TENSORS}") from None
    if document.get("schema") != SCHEMA:
        raise UserError(f"{place} has the schema {document.get('schema')!r}; this version reads {SCHEMA}")
    return document


def read(place: Path, document: Mapping[str, Any], model: nn.Module) -> Case:
    """The case again, on a model whose weights and buffers are replaced by those of the capsule.

    Raises:
        UserError: the model is not the one that was trained.
    """
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = load_file(str(place / _TENSORS))
    _fill(model, tensors, document)
    facts = SubjectFacts(**document["subject"])
    program = _played(document["program"], "step", tensors)
    goals = [program.goals[k] for k in document["goals"]]
    previous = document["previous"] and Player(
        _played(document["previous"], "previous", tensors), model, facts, document["scale"]
    )
    before = {name.removeprefix("before/"): t for name, t in tensors.items() if name.startswith("before/")}
    return Case(Player(program, model, facts, document["scale"], goals), previous or None, before or None, **document["case"])


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    own = {f"parameters/{n}": p for n, p in model.named_parameters()} | {f"buffers/{n}": b for n, b in model.named_buffers()}
    held = {name: t for name, t in tensors.items() if name.startswith(("parameters/", "buffers/"))}
    wrong = next((n for n in held if n not in own or own[n].shape != held[n].shape), None) or next(
        (n for n in own if n not in held), None
    )
    if wrong is not None:
        has = f"{tuple(own[wrong].shape)}" if wrong in own else "absent"
        kept = f"{tuple(held[wrong].shape)}" if wrong in held else "absent"
        raise UserError(
            f"the model is not the one in the capsule: {wrong.partition('/')[2]} is {kept} there and {has} here; name the "
            "model as `stabdiag replay CAPSULE FILE.py:Name` and give its arguments with --arg"
        )
    with torch.no_grad():
        for name, tensor in held.items():
            own[name].data = tensor.clone()
    for path, module in model.named_modules():
        module.__dict__.update(document["attributes"].get(path, {}))


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What a module holds in plain numbers: train or eval mode, rates of dropout, what the author's forward looks at."""
    return {key: value for key, value in vars(module).items() if value is None or isinstance(value, bool | int | float | str)}


def _subject(facts: SubjectFacts) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in facts.__slots__}


def _program(program: Program, prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    for k, leaf in enumerate(program.leaves):
        tensors[f"{prefix}/leaf/{k}"] = leaf
    for name, buffer in program.buffers.items():
        tensors[f"{prefix}/buffer/{name}"] = buffer
    return {
        "calls": [_call(call, f"{prefix}/{k}", tensors) for k, call in enumerate(program.calls)],
        "names": program.names,
        "requires_grad": [leaf.requires_grad for leaf in program.leaves],
        "goals": [{"value": _encoded(goal.value), "scaled": goal.scaled} for goal in program.goals],
        "buffers": list(program.buffers),
        "autocast": str(program.autocast)[6:] if program.autocast is not None else None,
        "device": program.device,
        "gaps": len(program.gaps),
    }


def _call(call: Call, prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    for slot, gradient in call.gradients.items():
        tensors[f"{prefix}/gradient/{slot}"] = gradient
    state = None
    if call.random is not None:
        tensors[f"{prefix}/random"] = call.random.cpu
        for k, cuda in enumerate(call.random.cuda):
            tensors[f"{prefix}/random/{k}"] = cuda
        kind, keys, *rest = call.random.numpy
        tensors[f"{prefix}/random/numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
        version, words, gauss = call.random.python
        state = {"python": [version, list(words), gauss], "numpy": [kind, *rest], "cuda": len(call.random.cuda)}
    at = call.location
    return {
        "module": call.module,
        "name": call.name,
        "args": _encoded(call.args),
        "kwargs": _encoded(call.kwargs),
        "location": {name: getattr(at, name) for name in at.__slots__} if at is not None else None,
        "gradients": list(call.gradients),
        "random": state,
    }


def _played(data: Mapping[str, Any], prefix: str, tensors: Mapping[str, Tensor]) -> Program:
    leaves = [tensors[f"{prefix}/leaf/{k}"].requires_grad_(needs) for k, needs in enumerate(data["requires_grad"])]
    program = Program(leaves=leaves, names=list(data["names"]), versions=[times_written(leaf) for leaf in leaves])
    program.calls = [_restored(call, f"{prefix}/{k}", tensors) for k, call in enumerate(data["calls"])]
    program.goals = [Goal(_decoded(goal["value"]), torch.zeros(()), goal["scaled"]) for goal in data["goals"]]
    program.buffers = {name: tensors[f"{prefix}/buffer/{name}"] for name in data["buffers"]}
    program.autocast = getattr(torch, data["autocast"]) if data["autocast"] else None
    program.device, program.gaps = data["device"], [None] * data["gaps"]
    return program


def _restored(data: Mapping[str, Any], prefix: str, tensors: Mapping[str, Tensor]) -> Call:
    random_state = None
    if (state := data["random"]) is not None:
        version, words, gauss = state["python"]
        keys = tensors[f"{prefix}/random/numpy"].numpy().astype(np.uint32)
        kind, *rest = state["numpy"]
        cuda = [tensors[f"{prefix}/random/{k}"] for k in range(state["cuda"])]
        random_state = RandomState(tensors[f"{prefix}/random"], cuda, (version, tuple(words), gauss), (kind, keys, *rest))
    return Call(
        data["module"],
        data["name"],
        None,
        _decoded(data["args"]),
        _decoded(data["kwargs"]),
        Location(**data["location"]) if data["location"] else None,
        random_state,
        {slot: tensors[f"{prefix}/gradient/{slot}"] for slot in data["gradients"]},
    )


def _optimizer(optimizer: torch.optim.Optimizer, number: int, model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Any]:
    names = {id(p): name for name, p in model.named_parameters()}
    state: dict[str, dict[str, Any]] = {}
    for parameter, entries in optimizer.state.items():
        name = names.get(id(parameter), "")
        for key, value in entries.items() if name else ():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{number}/{name}/{key}"] = value
            elif isinstance(value, int | float | bool | str):
                state.setdefault(name, {})[key] = value
    groups = []
    for group in optimizer.param_groups:
        settings = {key: value for key, value in group.items() if key != "params" and _is_plain(value)}
        groups.append(settings | {"params": [names.get(id(p), "") for p in group["params"]]})
    return {"name": type(optimizer).__name__, "module": type(optimizer).__module__, "groups": groups, "state": state}


def optimizer_of(place: Path, document: Mapping[str, Any], number: int, model: nn.Module) -> torch.optim.Optimizer | None:
    """An optimizer of the capsule on this model, with its state; None where its class is not torch's own."""
    from safetensors.torch import load_file

    data = document["optimizers"][number]
    kind = getattr(torch.optim, data["name"], None)
    if kind is None or not data["module"].startswith("torch.optim"):
        return None
    own = dict(model.named_parameters())
    groups = [group | {"params": [own[name] for name in group["params"] if name]} for group in data["groups"]]
    optimizer: torch.optim.Optimizer = kind(groups, **{k: v for k, v in data["groups"][0].items() if k in ("lr", "eps")})
    prefix = f"optimizer/{number}/"
    for name, tensor in load_file(str(place / _TENSORS)).items():
        if name.startswith(prefix):
            owner, _, key = name.removeprefix(prefix).rpartition("/")
            optimizer.state[own[owner]][key] = tensor
    for name, entries in data["state"].items():
        optimizer.state[own[name]].update(entries)
    return optimizer


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _encoded(value: Any) -> Any:
    """A nested argument as JSON. Raises UserError for what cannot be written without running code to read it."""
    if isinstance(value, Made):
        return {"made": [value.call, value.slot]}
    if isinstance(value, Leaf):
        return {"leaf": value.index}
    if isinstance(value, Own):
        return {"own": value.name}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return {"float": repr(value)}
    if isinstance(value, list):
        return [_encoded(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_encoded(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[key, _encoded(item)] for key, item in value.items()]}
    if isinstance(value, slice):
        return {"slice": [_encoded(value.start), _encoded(value.stop), _encoded(value.step)]}
    if value is Ellipsis:
        return {"ellipsis": True}
    if isinstance(value, torch.dtype | torch.device | torch.memory_format):
        return {type(value).__name__: str(value).removeprefix("torch.")}
    raise UserError(
        f"the step was called with a {type(value).__name__}, which a capsule cannot hold; pass tensors and plain data"
    )


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    plain = {"leaf": Leaf, "own": Own, "float": float, "device": torch.device}
    if kind in plain:
        return plain[kind](content)
    if kind == "made":
        return Made(*content)
    if kind in ("dtype", "memory_format"):
        return getattr(torch, content)
    if kind == "slice":
        return slice(*(_decoded(item) for item in content))
    if kind == "ellipsis":
        return Ellipsis
    items = [_decoded(item[1] if kind == "dict" else item) for item in content]
    return tuple(items) if kind == "tuple" else {item[0]: v for item, v in zip(content, items, strict=True)}
