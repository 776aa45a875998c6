"""The pipeline in one screen: load → probe → judge → triage → report."""

from __future__ import annotations

from collections.abc import Callable
from math import nan
from typing import Any

from stabdiag.errors import ScanError
from stabdiag.evidence.graph.structure import modules_of, weights_of_model
from stabdiag.finding import Finding
from stabdiag.judging.layers import layers_of, op_rows
from stabdiag.judging.operands import operands_of
from stabdiag.judging.persistence import persistent
from stabdiag.judging.report import Replayed, Samples, SubjectReport
from stabdiag.judging.triage import triage
from stabdiag.judging.verdict import verdicts
from stabdiag.probe.process import probe_in_worker
from stabdiag.repair.advice import advise
from stabdiag.rule import selected
from stabdiag.scanning.settle import as_asked, order, weigh
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Run, SubjectFacts, Trace
from stabdiag.trace.containment import contained

Progress = Callable[[str, float], None]


def scan(request: ScanRequest, progress: Progress | None = None) -> SubjectReport:
    """Scan one subject in a worker process. Never raises for what the user's code does: see `SubjectReport.error`."""
    trace, error = probe_in_worker(request, progress)
    return report_on(trace, request, error)


def scan_here(request: ScanRequest, progress: Progress | None = None) -> SubjectReport:
    """Scan one subject in this process: for tests and notebooks, where a crash of the model's code may take the process along.

    Raises SubjectError when the subject cannot be loaded.
    """
    from stabdiag.probe.here import probe_file

    return report_on(probe_file(request, progress or _silent), request)


def scan_model(
    model: Any, inputs: Any, loss: Any = None, request: ScanRequest | None = None, progress: Progress | None = None
) -> SubjectReport:
    """Scan a live `nn.Module` in this process. Every tensor of it is left bit for bit as found.

    Args:
        model: in whatever mode and dtype; it is probed in train mode.
        inputs: a tensor, a tuple of positional or a dict of keyword arguments; None infers them.
        loss: `loss(output) -> scalar`; None infers the objective.
        request: everything else; its target is ignored.
        progress: told what runs and which share is done.
    """
    from stabdiag.probe.here import probe_live

    request = request or ScanRequest(target=type(model).__name__)
    return report_on(probe_live(model, inputs, loss, request, progress or _silent), request)


def _silent(what: str, share: float) -> None:
    pass


def report_on(trace: Trace | None, request: ScanRequest, error: ScanError | None = None) -> SubjectReport:
    """Judge what was recorded. A trace without a usable float32 run is an error, whatever else is known."""
    if trace is None:
        path, _, name = request.target.partition(":")
        return SubjectReport(SubjectFacts(path, name, 0, "", ""), error=error)
    base = trace.run("float32")
    reference = trace.run("float64") or base
    if error is None and base is not None and base.error is not None and base.raised is None:
        at = f" at {base.error_at.path}:{base.error_at.line}" if base.error_at is not None else ""
        error = ScanError("forward", f"the {base.error_phase or 'forward'} pass fails in float32{at}: {base.error}")
    rules = selected(request.select, request.extend_select, request.ignore)
    found: list[Finding] = []
    for rule in sorted(rules, key=lambda rule: rule.kind == "scan"):  # last, because they say which of the others failed
        with contained(trace, rule.code, "rule"):
            made = persistent(rule.check(trace, request.thresholds.get(rule.code)), trace)
            found += as_asked(made, request, trace.subject.path)
    findings = triage(found)
    precisions = verdicts(trace, findings, request.with_declared(trace.subject.training).precisions)
    weigh(findings, request, trace.subject)
    report = SubjectReport(
        subject=trace.subject,
        precisions=precisions,
        findings=sorted(findings, key=order),
        layers=layers_of(trace),
        coverage=coverage(trace),
        training=trace.experiments.training,
        error=error,
        rules_run=[rule.code for rule in rules],
        op_rows=op_rows(trace),
        samples=_samples(reference),
        weights=weights_of_model(trace),
        modules=modules_of(trace),
        initialised={p.name: p.initialised_at for p in base.parameters} if base is not None else {},
        ran=[run.precision for run in trace.runs if run.error is None and (run.seed, run.step) == (0, 0)],
        operands=operands_of(trace),
        batch_size=_batch_size(base),
        descent=trace.experiments.loss_curve,
        replayed=[Replayed(**row) for row in trace.experiments.replayed],
    )
    if not (request.edited or request.after_build):  # a fix on trial: nobody reads its advice
        advise(report, request)
    return report


def _samples(reference: Run | None) -> Samples:
    if reference is None:
        return Samples()
    gradients = {p.name: p.gradient for p in reference.parameters if p.gradient is not None}
    norms = {name: nan if gradient.nonfinite else gradient.norm for name, gradient in gradients.items()}
    return Samples(reference.output_samples, reference.loss, reference.gradient_samples, norms, reference.precision)


def _batch_size(run: Run | None) -> int | None:
    """The first size of the first input; None without one."""
    shapes = (value.shape for value in run.values if value.kind == "input") if run is not None else iter(())
    return next((shape[0] for shape in shapes if shape), None)


def coverage(trace: Trace) -> dict[str, object]:
    """What was seen, what was not, and what it cost in bare training steps."""
    base = trace.base
    return {
        "ops": len(base.ops) if base else 0,
        "batches": base.batches if base else 0,
        "seeds": len(trace.seeds()),
        "spent": trace.spent,
        "unseen": trace.unseen,
    }
