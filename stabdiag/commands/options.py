"""Options that several commands have: what is scanned and how."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from stabdiag.errors import UserError
from stabdiag.settings.config import RUN_KEYS, SUBJECT_KEYS
from stabdiag.settings.values import keyword_arguments, split

COMMA_SEPARATED = ("precisions", "select", "extend_select", "ignore")

SCAN_OPTIONS: dict[str, Any] = {
    "inputs": Annotated[
        list[str] | None, typer.Option("--input", "-i", metavar="SPEC", help="8x3x32x32 or ids=4x128:int64<1000.")
    ],
    "arguments": Annotated[
        list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="Constructor argument; repeatable.")
    ],
    "data": Annotated[str | None, typer.Option(metavar="FILE", help="Inputs, and a target, from .pt, .npz, .csv, …")],
    "weights": Annotated[str | None, typer.Option(metavar="FILE", help="state_dict from .pt or .safetensors.")],
    # Named, because Typer before 0.28 takes a metavar that is the option's own name for its spelling and offers `--DEVICE`.
    "device": Annotated[str | None, typer.Option("--device", metavar="DEVICE", help="auto, cpu or cuda. [default: auto]")],
    "precisions": Annotated[
        list[str] | None,
        typer.Option("--precision", "-p", metavar="LIST", help="Comma-separated. [default: float32,float16,bfloat16]"),
    ],
    "fail_on": Annotated[str | None, typer.Option(metavar="SEVERITY", help="error, warning, info or never. [default: error]")],
    "select": Annotated[list[str] | None, typer.Option(metavar="RULES", help="Only these codes, prefixes or names.")],
    "extend_select": Annotated[list[str] | None, typer.Option(metavar="RULES", help="These, too.")],
    "ignore": Annotated[list[str] | None, typer.Option(metavar="RULES", help="All but these.")],
    "baseline": Annotated[str | None, typer.Option(metavar="FILE", help="Accepted findings.")],
    "batches": Annotated[int | None, typer.Option(metavar="N", help="Different batches. [default: by budget]")],
    "seeds": Annotated[int | None, typer.Option(metavar="N", help="Initialisations. [default: by budget]")],
    "steps": Annotated[int | None, typer.Option(metavar="N", help="Optimizer steps to take and watch.")],
    "optimizer": Annotated[str | None, typer.Option(metavar="NAME", help="sgd, adam, adamw, …")],
    "lr": Annotated[float | None, typer.Option(metavar="X", help="Learning rate.")],
    "momentum": Annotated[float | None, typer.Option(metavar="X", help="Momentum.")],
    "clip": Annotated[float | None, typer.Option(metavar="X", help="Clip gradients to this norm.")],
    "budget": Annotated[float | None, typer.Option(metavar="X", help="Cost of a scan in bare training steps. [default: 12]")],
    "timeout": Annotated[float | None, typer.Option(metavar="SECONDS", help="Give up after; 0 for never. [default: 600]")],
    "memory_limit": Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of the worker, such as 8G.")],
    "config": Annotated[Path | None, typer.Option(metavar="FILE", help="Configuration instead of the nearest pyproject.toml.")],
}
"""Options of every command that scans, by parameter; they come before the command's own."""


def scans(command: Callable[..., int], without: Collection[str] = ()) -> Callable[..., int]:
    """A command with SCAN_OPTIONS, `without` some. It reads what was typed from its context, see `typed`."""
    own = inspect.signature(command, eval_str=True)
    options = {name: kind for name, kind in SCAN_OPTIONS.items() if name not in without}
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind) for name, kind in options.items()
    ]

    @wraps(command)
    def wrapped(**given: Any) -> int:
        return command(**{name: value for name, value in given.items() if name in own.parameters})

    others = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own.parameters.values()]
    wrapped.__signature__ = own.replace(parameters=[*shared, *others])  # type: ignore[attr-defined]
    wrapped.__annotations__ = command.__annotations__ | options
    return wrapped


def typed(params: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among a command's parameters, as `stabdiag.settings.config.load` takes them."""
    settable = {key: value for key, value in params.items() if key in RUN_KEYS | SUBJECT_KEYS}
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in settable.items()}
    values |= {key: _listed(key, values[key]) for key in COMMA_SEPARATED if values.get(key)}
    values["arguments"] = keyword_arguments(params.get("arguments") or []) or None
    return values


def _listed(key: str, given: list[str]) -> list[str]:
    values = split(given)
    if not values:
        raise UserError(f"`--{key.replace('_', '-')}` was given without a value; name one, or leave the option out")
    return values
