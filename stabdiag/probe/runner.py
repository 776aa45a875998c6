"""The runner: Subject × precisions × batches × seeds → Trace, within a budget of bare training steps.

What to run is decided from counted work before anything runs, so that two scans of the same model decide alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from stabdiag.evidence.numbers.descent import in_doubt
from stabdiag.evidence.numbers.loss_scale import recommended_scale
from stabdiag.probe import optimizer
from stabdiag.probe.experiments import experiments
from stabdiag.probe.first_steps import advance
from stabdiag.probe.merge import merge
from stabdiag.probe.plan import Plan, plan
from stabdiag.probe.recorder import Recorder, Stage
from stabdiag.recording.reference import Reference
from stabdiag.recording.torch_private import MISSING
from stabdiag.rule import measurements
from stabdiag.settings.request import ScanRequest
from stabdiag.subject.device import resolve
from stabdiag.subject.subject import Subject
from stabdiag.trace import NotRun, Run, Trace
from stabdiag.trace.containment import contained

Progress = Callable[[str, float], None]
"""Told what runs now and which share of the budget is done."""


def probe(
    subject: Subject,
    request: ScanRequest,
    progress: Progress = lambda what, share: None,
    save: Callable[[Trace], None] = lambda trace: None,
) -> Trace:
    """Run a subject as the request asks and record what happens.

    `save` is called with the Trace after float32 and after the other precisions, so that what is known survives a crash of the
    worker. Not more often: writing a trace of thousands of ops takes about as long as recording it.
    """
    request = request.with_declared(subject.facts.training)
    device = resolve(request.device)
    trace = Trace(subject.facts)
    recorder = Recorder(subject, device, measurements())
    optimizer.check(request)
    todo = plan(subject, request)
    trace.spent = todo.costs()
    reference = _reference(recorder, trace, progress)
    if request.device == "auto" and device.type != "cpu" and _needs_the_cpu(trace):
        trace.unseen.append(f"the {device.type} device: the model's code makes tensors on the CPU, so all of it ran there")
        trace.not_run.clear()
        recorder = Recorder(subject, torch.device("cpu"), measurements())
        reference = _reference(recorder, trace, progress)
    recorder.reference = reference
    _base(recorder, trace, reference, todo, request, progress)
    save(trace)
    for name in (p for p in todo.precisions if p not in ("float32", "float64")):
        progress(name, todo.done(trace))
        _low_precision(recorder, trace, name, reference)
    save(trace)
    progress("experiments", todo.done(trace))
    for experiment in experiments():
        with contained(trace, experiment.__module__.rpartition(".")[2], "experiment"):
            experiment(recorder, trace, request, progress)
    trace.unseen += MISSING
    progress("done", 1.0)
    return trace


def _reference(recorder: Recorder, trace: Trace, progress: Progress) -> Reference:
    """Record the float64 run that every other one is compared against; float32 takes its place where float64 cannot run."""
    progress("float64", 0.0)
    run, reference = _double(recorder)
    if run.error is not None and recorder.unrounded:  # perhaps a buffer or a branch cannot do without the author's cast
        recorder.unrounded = False
        recorder.replays.clear()
        run, reference = _double(recorder)
    if run.error is None:
        trace.runs.append(run)
        return reference
    if run.raised is None:  # that float32 has to say, too
        trace.not_run.append(NotRun("float64", f"{run.error}; float32 is the reference"))
    recorder.replays.clear()
    return Reference()


def _double(recorder: Recorder) -> tuple[Run, Reference]:
    reference = Reference()
    with recorder.stage("float64") as stage:
        return recorder.record(stage, keep=reference, measure=False), reference


def _needs_the_cpu(trace: Trace) -> bool:
    """Whether the reference broke because tensors met on two devices: targets or masks that a file makes on the CPU."""
    return any(said in missing.reason for missing in trace.not_run for said in ("same device", "expected device"))


def _base(recorder: Recorder, trace: Trace, reference: Reference, todo: Plan, request: ScanRequest, progress: Progress) -> None:
    """Float32: all batches, further seeds, and the state after two optimizer steps."""
    progress("float32", todo.done(trace))
    compared = trace.run("float64") is not None
    with recorder.stage("float32") as stage:
        if compared:
            run = _compared(recorder, stage, reference, keep_gradients=todo.two_time)
        else:
            run = recorder.record(stage, keep=reference, keep_gradients=todo.two_time)
        trace.runs.append(run)
        if run.error is None and todo.two_time:
            first = trace.experiments.first_steps = advance(recorder, stage, 2, request, run)
            if first["taken"] == 2:  # else what is zero now says nothing new
                trace.runs.append(recorder.record(stage, step=2))
    if run.error is not None:
        return
    with recorder.stage("float32") as stage:
        for batch in range(1, todo.batches):
            merge(run, recorder.record(stage, batch=batch))
    for seed in range(1, todo.seeds):
        if recorder.subject.rebuild is not None:
            _another_seed(recorder, trace, seed)


def _another_seed(recorder: Recorder, trace: Trace, seed: int) -> None:
    assert recorder.subject.rebuild is not None
    model = recorder.subject.rebuild(seed)
    with recorder.stage("float32", model=model) as stage:
        trace.runs.append(recorder.record(stage, seed=seed))


def _low_precision(recorder: Recorder, trace: Trace, name: str, reference: Reference) -> None:
    """One 16-bit precision, with the loss scale that the reference run recommends; the reason where it cannot run."""
    scale = recommended_scale(trace, name)
    with recorder.stage(name) as stage:
        run = _compared(recorder, stage, reference, scale=scale)
    if run.error is not None and run.raised is None and _not_about_numbers(run):
        trace.not_run.append(NotRun(name, run.error))
    trace.runs.append(run)  # also when it broke: what was recorded up to there may say why


def _compared(recorder: Recorder, stage: Stage, reference: Reference, **how: Any) -> Run:
    """Record a run against the reference; its gradients are kept where they must be tried."""
    own = Reference()
    run = recorder.record(stage, keep=own, against=reference, **how)
    if in_doubt(run):
        recorder.doubtful[run.precision] = own.gradients
    return run


def _not_about_numbers(run: Run) -> bool:
    """Whether a run broke for a reason of types or kernels, with every recorded value finite: nothing to judge in it."""
    return not any(v.stats is not None and v.stats.nan for v in run.values)
