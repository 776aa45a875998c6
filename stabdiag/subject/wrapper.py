"""The contract of a model written out from what was found: build_model, example_inputs, loss and make_optimizer to edit.

`python -m stabdiag.subject.wrapper TARGET` prints it; a process of its own, because it runs the code of the target.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from stabdiag.subject.build import bind
from stabdiag.subject.choose import Choice, choose
from stabdiag.subject.importing import import_target, parse_target
from stabdiag.subject.load import load
from stabdiag.subject.seeds import seeded
from stabdiag.subject.subject import Inputs, Subject, SubjectError


def wrapper(target: str) -> str:
    """The text of the file for a target, as `load` finds its model, inputs and objective.

    Raises:
        SubjectError: as `load`.
    """
    taken = parse_target(target)
    with seeded(0):
        module = import_target(taken)
        choice = choose(module, str(taken.path or taken.module), taken.name, {})
    subject = load(target)
    home = module.__name__.removeprefix("stabdiag_subject_")
    name = choice.name.split(".")[0]
    arguments, kinds = _arguments(choice, module)
    made = f"{choice.name}({arguments})" if choice.target is not None else choice.name
    clash = name if name not in ("build_model", "loss", "example_inputs", "make_optimizer") else f"{name} as original"
    made = made if clash == name else made.replace(name, "original", 1)
    inputs = subject.batch(0)
    return "\n".join(
        [
            f'"""What stabdiag scans of {home}: edit what is guessed, then `stabdiag scan` this file."""',
            "",
            "import torch",
            "import torch.nn.functional as F",
            "",
            f"from {home} import {', '.join([clash, *kinds])}",
            "",
            "",
            "def build_model():",
            "    torch.manual_seed(0)",
            f"    return {made}",
            "",
            "",
            f"def example_inputs():  # {subject.facts.how['inputs']}",
            *_inputs(inputs),
            "",
            *_loss(subject),
            "",
            "def make_optimizer(model):  # as you train it",
            "    return torch.optim.AdamW(model.parameters(), lr=1e-3)",
            "",
        ]
    )


def _arguments(choice: Choice, module: ModuleType) -> tuple[str, list[str]]:
    """The arguments of the call, and which classes of the file they need."""
    if choice.target is None:
        return "", []
    args, kwargs, _ = bind(choice.target, choice.name, module, choice.guessed)
    values = [*args, *kwargs.values()]
    kinds = [type(v).__name__ for v in values if vars(module).get(type(v).__name__) is type(v)]
    return ", ".join([*map(_literal, args), *(f"{key}={_literal(value)}" for key, value in kwargs.items())]), kinds


def _literal(value: Any) -> str:
    """The value as code; an object is made anew, by its class without arguments."""
    plain = isinstance(value, bool | int | float | str | list | tuple | dict | type(None))
    return repr(value) if plain else f"{type(value).__name__}()"


def _inputs(inputs: Inputs) -> list[str]:
    named = {key: _drawn(value) for key, value in inputs.kwargs.items()}
    if named and not inputs.args:
        return ["    return {", *(f'        "{key}": {text},' for key, text in named.items()), "    }", ""]
    texts = [_drawn(value) for value in inputs.args]
    return [f"    return {texts[0]}" if len(texts) == 1 else f"    return ({', '.join(texts)})", ""]


def _drawn(value: Any) -> str:
    if isinstance(value, tuple | list):
        inner = ", ".join(map(_drawn, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if not isinstance(value, torch.Tensor):
        return _literal(value)
    size = ", ".join(map(str, value.shape)) or "()"
    if value.dtype == torch.bool:
        return f"torch.ones({size}, dtype=torch.bool)"
    if not value.is_floating_point():
        return f"torch.randint(0, {int(value.max()) + 1 if value.numel() else 1}, ({size},))"
    return f"torch.randn({size})"


def _loss(subject: Subject) -> list[str]:
    """The objective as a function of the output; nothing where the file has its own."""
    if "loss" in subject.facts.declared:
        return []
    name, why = subject.facts.objective, subject.facts.how["objective"]
    unrun = f"    # the file's own: {subject.facts.unrun}" if subject.facts.unrun else ""
    if (own := re.match(r"the model's own loss, output(\S*)", name)) is not None:
        body = f"return output{own[1]}"
    elif (classes := re.match(r"cross-entropy over (\d+) classes(?: of (output\S*))?", name)) is not None:
        moved = ".movedim(1, -1)" if "per position" in why else ""
        body = (
            f"logits = {classes[2] or 'output'}{moved}.reshape(-1, {classes[1]})\n"
            f"    return F.cross_entropy(logits, torch.arange(len(logits)) % {classes[1]})"
        )
    else:
        of = re.search(r" of (output[^\s/]*)", name)
        body = f"return {of[1] if of else 'output'}.square().mean()"
    return [f"def loss(output):  # guessed: {name}; {why}", *([unrun] if unrun else []), f"    {body}", ""]


def main() -> None:
    """Print the wrapper of the target in the first argument as JSON, or why there is none."""
    try:
        answer = {"text": wrapper(sys.argv[1])}
    except SubjectError as error:
        answer = {"error": str(error)}
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
