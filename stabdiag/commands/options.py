"""Options that several commands have: what is scanned and how."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from stabdiag.errors import UserError
from stabdiag.settings.config import RUN_KEYS, SUBJECT_KEYS
from stabdiag.settings.values import keyword_arguments, split

COMMA_SEPARATED = ("precisions", "select", "extend_select", "ignore")

Inputs = Annotated[list[str] | None, typer.Option("--input", "-i", metavar="SPEC", help="8x3x32x32 or ids=4x128:int64<1000.")]
Arguments = Annotated[list[str] | None, typer.Option("--arg", metavar="NAME=VALUE", help="Constructor argument; repeatable.")]
Data = Annotated[str | None, typer.Option(metavar="FILE", help="Inputs from .pt, .npz or .safetensors.")]
Weights = Annotated[str | None, typer.Option(metavar="FILE", help="state_dict from .pt or .safetensors.")]
# Named, because Typer before 0.28 takes a metavar that is the option's own name for its spelling and offers `--DEVICE`.
Device = Annotated[str | None, typer.Option("--device", metavar="DEVICE", help="auto, cpu or cuda. [default: auto]")]
Precisions = Annotated[
    list[str] | None,
    typer.Option("--precision", "-p", metavar="LIST", help="Comma-separated. [default: float32,float16,bfloat16]"),
]
FailOn = Annotated[str | None, typer.Option(metavar="SEVERITY", help="error, warning, info or never. [default: error]")]
Select = Annotated[list[str] | None, typer.Option(metavar="RULES", help="Only these codes, prefixes or names.")]
ExtendSelect = Annotated[list[str] | None, typer.Option(metavar="RULES", help="These, too.")]
Ignore = Annotated[list[str] | None, typer.Option(metavar="RULES", help="All but these.")]
BaselineFile = Annotated[str | None, typer.Option(metavar="FILE", help="Accepted findings.")]
Batches = Annotated[int | None, typer.Option(metavar="N", help="Different batches. [default: by budget]")]
Seeds = Annotated[int | None, typer.Option(metavar="N", help="Initialisations. [default: by budget]")]
Steps = Annotated[int | None, typer.Option(metavar="N", help="Optimizer steps to take and watch.")]
Optimizer = Annotated[str | None, typer.Option(metavar="NAME", help="sgd, adam, adamw, …")]
LearningRate = Annotated[float | None, typer.Option(metavar="X", help="Learning rate.")]
Momentum = Annotated[float | None, typer.Option(metavar="X", help="Momentum.")]
Clip = Annotated[float | None, typer.Option(metavar="X", help="Clip gradients to this norm.")]
Budget = Annotated[float | None, typer.Option(metavar="X", help="Cost of a scan in bare training steps. [default: 12]")]
Timeout = Annotated[float | None, typer.Option(metavar="SECONDS", help="Give up after; 0 for never. [default: 600]")]
MemoryLimit = Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of the worker, such as 8G.")]
Config = Annotated[Path | None, typer.Option(metavar="FILE", help="Configuration instead of the nearest pyproject.toml.")]


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
