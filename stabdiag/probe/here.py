"""Load and probe in this process: what the worker does, and what the Python API does with a live model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from stabdiag.probe.recorder import named_tensors
from stabdiag.probe.runner import probe
from stabdiag.recording import stats
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.capture import loop, script
from stabdiag.subject.capture.played import playing
from stabdiag.subject.capture.watch import Cycle
from stabdiag.subject.construction import Construction, recording
from stabdiag.subject.device import resolve
from stabdiag.subject.live import live
from stabdiag.subject.load import load, shown_path
from stabdiag.subject.overlay import overlay
from stabdiag.subject.subject import Subject, SubjectError
from stabdiag.trace import Location, Trace

Progress = Callable[[str, float], None]


def probe_file(
    request: ScanRequest,
    progress: Progress,
    save: Callable[[Trace], None] = lambda trace: None,
    stubborn: Callable[[], None] = lambda: None,
) -> Trace:
    """Load the request's target and probe it. Raises SubjectError when there is nothing to probe.

    `stubborn` ends the process of a script that does not let itself be ended.
    """
    progress("load", 0.0)
    stats.warm_up()
    with overlay(request.edited):
        refused = ""
        if request.script is not None:
            return _probe_script(request, progress, save, stubborn)
        if _is_script(request):
            try:
                return _probe_script(replace(request, script=[]), progress, save, stubborn)
            except SubjectError as error:
                refused = str(error)
        with recording() as construction:
            subject = _loaded(request, refused)
            data = {name: construction.outermost(tensor) for name, tensor in named_tensors(subject.batch(0))}
        _run_after_build(subject, request.after_build)
        _multiply_loss(subject, request.loss_factor)
        return _probe(subject, construction, data, request, progress, save)


def _loaded(request: ScanRequest, refused: str) -> Subject:
    """The model of the target; `refused` says why the training that it does when it is executed could not be captured."""
    try:
        subject = load(
            request.target,
            arguments=request.arguments,
            input_specs=request.inputs,
            data=request.data,
            weights=request.weights,
            device=request.device,
        )
    except SubjectError as error:
        if not refused:
            raise
        message = f"{str(error).rstrip('.')}; its training was tried first, but {refused}"
        raise SubjectError(message, error.kind, error.detail) from error
    if refused:
        subject.facts.how["model"] += f"; its training was tried first, but {refused}"
    return subject


def _is_script(request: ScanRequest) -> bool:
    """Whether a scan of the target is a scan of the training that it does when it is executed: it keeps no contract, and no
    option asks for another model, other inputs or other weights."""
    path = Path(request.target)
    asked = request.arguments or request.inputs or request.data or request.weights
    return not asked and path.is_file() and loop.trains_when_run(loop.tree(path))


def _probe_script(
    request: ScanRequest, progress: Progress, save: Callable[[Trace], None], stubborn: Callable[[], None]
) -> Trace:
    """Run the target as a script and probe a step that it takes."""
    resolve(request.device)
    found: list[Trace] = []

    def play(cycles: list[Cycle]) -> None:
        with playing(cycles, shown_path(Path(request.target))) as subject:
            lines = [cycles[0].lines.get(id(leaf)) for leaf in cycles[0].tape.leaves]
            data = dict(zip(subject.batch(0).kwargs, lines, strict=True))
            _run_after_build(subject, request.after_build)
            _multiply_loss(subject, request.loss_factor)
            found.append(_probe(subject, construction, data, request, progress, save))

    progress("script", 0.0)
    with recording() as construction:
        handle = register_optimizer_step_pre_hook(lambda optimizer, args, kwargs: construction.close())
        try:
            script.run(
                Path(request.target), request.script or [], request.at, play, keep_going=request.keep_going, stubborn=stubborn
            )
        finally:
            handle.remove()
    return found[0]


def _run_after_build(subject: Subject, statements: list[str]) -> None:
    """Run a fix's statements on the built model, and on every rebuilt one."""
    if not statements:
        return
    code = compile("\n".join(statements), "<fix>", "exec")

    def apply(model: nn.Module) -> nn.Module:
        exec(code, {"model": model, "torch": torch, "nn": nn, "math": math})
        return model

    apply(subject.model)
    if (rebuild := subject.rebuild) is not None:
        subject.rebuild = lambda k: apply(rebuild(k))


def _multiply_loss(subject: Subject, factor: float) -> None:
    """Put a constant in front of the loss, as a fix on trial asks for."""
    if factor != 1.0:
        loss = subject.loss
        subject.loss = lambda output, inputs: loss(output, inputs) * factor


def probe_live(model: nn.Module, inputs: Any, loss: Any, request: ScanRequest, progress: Progress) -> Trace:
    """Probe a model that is at hand; it is left as found."""
    return _probe(live(model, inputs, loss), Construction(), {}, request, progress, lambda trace: None)


def _probe(
    subject: Subject,
    construction: Construction,
    data: dict[str, Location | None],
    request: ScanRequest,
    progress: Progress,
    save: Callable[[Trace], None],
) -> Trace:
    def locate(trace: Trace) -> None:
        trace.modules, trace.data = construction.of_modules(subject.model), data
        tensors = dict(subject.model.named_parameters())
        for parameter in (p for run in trace.runs for p in run.parameters):
            if parameter.name in tensors:
                construction.locate(parameter, tensors[parameter.name])
            parameter.made_at = trace.modules.get(parameter.name.rpartition(".")[0])
        save(trace)

    trace = probe(subject, request, progress, locate)
    locate(trace)
    return trace
