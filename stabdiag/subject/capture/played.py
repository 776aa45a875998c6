"""From captured steps to a Subject: the author's modules and free parameters, the batch, the loss, the optimizers."""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stabdiag.subject.capture.tape import Loss, Made, Tape, added, references
from stabdiag.subject.capture.trees import tensors_in
from stabdiag.subject.capture.watch import Cycle
from stabdiag.subject.frames import one_line
from stabdiag.subject.inputs.sources import describe
from stabdiag.subject.subject import Inputs, Returned, Subject, SubjectError
from stabdiag.trace import Location, SubjectFacts
from stabdiag.trace.formats import PRECISIONS

TOLERANCE = 1e-4
"""Relative difference of a loss that is played again as recorded: kernels with several threads may sum in another order."""


class Models(nn.Module):
    """The author's models side by side, and parameters that belong to none; never called itself."""

    def __init__(self, models: dict[str, nn.Module], free: dict[str, Tensor]) -> None:
        super().__init__()
        self._modules.update(models)
        self._parameters.update(free)  # type: ignore[arg-type]  # tensors that require a gradient, as the optimizer has them


@contextmanager
def playing(cycles: list[Cycle], shown: str) -> Iterator[Subject]:
    """The first captured step as a Subject, while the weights are those that it began with.

    Args:
        cycles: the captured steps: the first is played, a second one is another batch where it is the same step.
        shown: path of the script.

    Raises:
        SubjectError: kind "load", when the tape cannot be played again.
    """
    with rewound(cycles[0]):
        _check(cycles[0].tape, shown)
        yield _subject(cycles, shown)


def _subject(cycles: list[Cycle], shown: str) -> Subject:
    first = cycles[0]
    tape = first.tape
    model, name = _model(first)
    names = _distinct(tape.names)
    batches = [c for c in cycles if c is first or c.tape.signature == tape.signature]

    def batch(k: int) -> Inputs:
        leaves = batches[k % len(batches)].tape.leaves
        return Inputs((), dict(zip(names, leaves, strict=True)))

    def play(model: nn.Module, inputs: Inputs, returned: Returned) -> Tensor:
        return added(tape.play(list(inputs.kwargs.values()), returned))

    lines = list(dict.fromkeys(_line(_made_at(tape, loss)) for loss in tape.losses))
    count = len(tape.losses)
    what = lines[0] if len(lines) == 1 else f"{len(lines)} losses"
    steps = f"step {first.step}" + (f" and step {batches[1].step}" if len(batches) > 1 else "")
    training: dict[str, object] = {}
    formats = {str(node.autocast)[6:] for node in tape.nodes if node.autocast is not None}
    if formats:
        training["precisions"] = [
            "float32",
            "float16",
            "bfloat16",
            *(f"amp-{f}" for f in sorted(formats) if f"amp-{f}" in PRECISIONS),
        ]
    settings = {"loss_scale": first.scale, "clip": first.clip, "clip_value": first.clip_value}
    training |= {key: value for key, value in settings.items() if value is not None}
    missing = [f"the optimizer of line {at.line} took no step with it" for at in first.missing if at is not None]
    facts = SubjectFacts(
        path=shown,
        name=name,
        parameters=sum(p.numel() for p in model.parameters()),
        inputs=describe(batch(0)),
        objective=what,
        how={
            "model": "; ".join([f"as the script had it at step {first.step}", *missing]),
            "inputs": f"captured at {steps} of the script",
            "objective": f"captured: what backward() was called on{_times(count, lines)}",
        },
        declared=["inputs", "loss", "optimizer"],
        training=training,
    )
    return Subject(
        model,
        batch,
        lambda output, inputs: output,
        facts,
        len(batches),
        (lambda staged: [_fitting(o) for o in first.optimizers]) if first.optimizers else None,
        None,
        play,
        "the script's own" + (f" of line {first.made_at.line}" if first.made_at is not None else ""),
        keeps_mode=True,
        optimizer_at=first.made_at,
    )


def _times(count: int, lines: list[str]) -> str:
    if count > len(lines):
        return f", {count} times before the optimizer stepped"
    return f" ({'; '.join(lines)})" if len(lines) > 1 else ""


def _line(at: Location | None) -> str:
    return f"{_code(at.source) or at.function} in line {at.line}" if at is not None else "backward()"


def _made_at(tape: Tape, loss: Loss) -> Location | None:
    """The author's own line that made a loss; what a framework does with it since (dividing it) is passed over."""
    reference: Made | None = loss.of[0][0]
    while reference is not None:
        node = tape.nodes[reference.node]
        if node.location is not None and not node.location.library:
            return node.location
        reference = next((r for r in references(node) if isinstance(r, Made)), None)
    return loss.location


def _code(line: str) -> str:
    """A line without its comment."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(line.strip()).readline))
    except (tokenize.TokenError, IndentationError, SyntaxError):  # a line of a longer statement
        return line.strip()
    at = next((token.start[1] for token in tokens if token.type == tokenize.COMMENT), None)
    return line.strip()[:at].rstrip()


@contextmanager
def rewound(cycle: Cycle) -> Iterator[None]:
    """Parameters and buffers as they were at a captured step; afterwards as the script left them."""
    now = [(tensor, tensor.detach().clone()) for tensor, _ in cycle.before]
    try:
        with torch.no_grad():
            for tensor, value in cycle.before:
                tensor.data.copy_(value)
        yield
    finally:
        with torch.no_grad():
            for tensor, value in now:
                tensor.data.copy_(value)


def _model(cycle: Cycle) -> tuple[nn.Module, str]:
    """The author's own module where one holds all that is called and stepped, else all that are needed side by side."""
    called = [node.call for node in cycle.tape.nodes if isinstance(node.call, nn.Module)]
    called = [module for module in called if next(module.parameters(), None) is not None]
    stepped = [p for o in cycle.optimizers for group in o.param_groups for p in group["params"]]
    loose = [t for node in cycle.tape.nodes for t in tensors_in((node.args, node.kwargs)) if t.requires_grad and t.is_leaf]
    todo_modules = {id(m): m for m in called}
    todo_parameters = {id(p): p for p in (*stepped, *loose)}
    models: dict[str, nn.Module] = {}
    candidates = [*cycle.modules, *((type(m).__name__, m) for m in called)]
    for name, module in candidates:
        module = getattr(module, "_orig_mod", module)
        own = {id(part) for part in module.modules()}
        held = {id(p) for p in module.parameters()}
        if own & set(todo_modules) or held & set(todo_parameters):
            models[_free(name, models)] = module
            todo_modules = {i: m for i, m in todo_modules.items() if i not in own}
            todo_parameters = {i: p for i, p in todo_parameters.items() if i not in held}
    if len(models) == 1 and not todo_parameters:
        only = next(iter(models.values()))
        return only, type(only).__name__
    free = {f"parameter{k}" if len(todo_parameters) > 1 else "parameter": p for k, p in enumerate(todo_parameters.values())}
    kinds = list(dict.fromkeys(type(m).__name__ for m in models.values()))
    return Models(models, free), " + ".join(kinds) or "parameters"


def _free(name: str, taken: dict[str, nn.Module]) -> str:
    name = name.replace(".", "_") or "model"
    return name if name not in taken else next(f"{name}{k}" for k in range(2, 1000) if f"{name}{k}" not in taken)


def _distinct(names: list[str]) -> list[str]:
    """Names for all leaves, each once."""
    found: list[str] = []
    for index, name in enumerate(names):
        wanted = name or f"constant{index}"
        found.append(wanted if wanted not in found else f"{wanted}#{index}")
    return found


def _check(tape: Tape, shown: str) -> None:
    """Play the tape as it was recorded: the loss must be the script's."""
    state = torch.get_rng_state()
    try:
        leaves = [leaf.clone().requires_grad_(leaf.requires_grad) for leaf in tape.leaves]
        with torch.enable_grad(), _buffers_kept(tape):
            losses = tape.play(leaves, lambda output: None, as_recorded=True)
    except Exception as error:
        raise SubjectError(
            f"the captured step of {shown} cannot be played again ({one_line(error)}): put the model, its loss and a "
            "batch into build_model(), loss() and example_inputs(), and scan that file.",
            "load",
        ) from error
    finally:
        torch.set_rng_state(state)
    first = [(entry.value, float(loss.detach())) for entry, loss in zip(tape.losses, losses, strict=True) if not entry.later]
    expected, value = sum(e for e, _ in first), sum(v for _, v in first)
    if not any(loss.requires_grad for loss in losses):
        raise SubjectError(f"the loss that {shown} differentiates depends on no parameter that an optimizer steps.", "load")
    wide = any(node.autocast is not None for node in tape.nodes)
    close = abs(value - expected) <= (0.05 if wide else TOLERANCE) * max(abs(expected), 1e-6)
    if not close and value == value and expected == expected and abs(expected) != float("inf"):
        raise SubjectError(
            f"the captured step of {shown} played again has the loss {value:.6g} where the script had {expected:.6g}: part of "
            "what it computes cannot be followed; put the model, its loss and a batch into build_model(), loss() and "
            "example_inputs(), and scan that file.",
            "load",
        )


@contextmanager
def _buffers_kept(tape: Tape) -> Iterator[None]:
    modules = [node.call for node in tape.nodes if isinstance(node.call, nn.Module)]
    kept = [(b, b.detach().clone()) for m in modules for b in m.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.data.copy_(value)


def _fitting(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """A fresh copy with the state in the dtype that its parameters have now."""
    from stabdiag.subject.capture.watch import copied

    new = copied(optimizer)
    for parameter, state in new.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.is_floating_point() and value.shape == parameter.shape:
                state[key] = value.to(parameter.dtype)
    return new
