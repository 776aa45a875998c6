"""Sampled steps: recorded in full, judged by the ordinary rules, and what they say over time."""

from __future__ import annotations

from collections.abc import Callable
from math import log10
from typing import Any

from torch import Tensor, nn

from stabdiag import __version__
from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import Report, SubjectReport
from stabdiag.live import examination
from stabdiag.live.history import Step
from stabdiag.live.journal import Journal
from stabdiag.live.player import Player
from stabdiag.live.trends import Trends, measured, scale_bits
from stabdiag.scanning.pipeline import report_on
from stabdiag.scanning.settle import settle
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Location, SubjectFacts, Trace

SAMPLE = 4096  # weights per tensor of which the size of an update is taken

Site = tuple[str, str, str, str]
Log = Callable[[int, dict[str, float]], None]
"""Takes the number of a step and its scalars."""


class Samples:
    """What the sampled steps of one training came to.

    Attributes:
        last: the report of the latest; norms: root mean square of its gradients by parameter.
        unconfirmed: an error is new and waits for the next step to confirm it.
    """

    def __init__(self, facts: SubjectFacts, journal: Journal, log: Log | None) -> None:
        self.last: SubjectReport | None = None
        self.norms: dict[str, float] = {}
        self.unconfirmed = False
        self.trends = Trends()
        self._facts, self._journal, self._log = facts, journal, log
        self._places: dict[str, Location | None] = {}
        self._accepted: set[Site] | None = None
        self._suspects: set[Site] = set()
        self._before: dict[str, Tensor] = {}
        self._updates: dict[str, float] = {}

    def before_update(self, model: nn.Module) -> None:
        """Note a sample of the weights."""
        self._before = {name: _part(p) for name, p in model.named_parameters()}

    def after_update(self, model: nn.Module) -> None:
        """Note how far they moved, relative to what they were."""
        now = dict(model.named_parameters())
        norms = {name: (float(weight.double().norm()), weight) for name, weight in self._before.items()}
        self._updates = {n: float((_part(now[n]) - w).double().norm()) / size for n, (size, w) in norms.items() if size > 0}
        self._before = {}

    def judge(self, player: Player, step: int, last: Step | None, scaled: bool) -> Finding | None:
        """Record and judge a step; the error that was not there when watching began and is confirmed, if there is one."""
        trace = examination.sampled(player)
        run = trace.runs[0]
        self.last = report = _report(trace, self._facts)
        values = measured(run) | {("update ratio", name): log10(ratio) for name, ratio in self._updates.items() if ratio > 0}
        if scaled:
            values["loss scale", ""] = scale_bits(player.scale)
        self.trends.add(step, values)
        for op in run.phase("forward", "loss"):
            self._places.setdefault(op.module or op.layer or op.name, op.location)
        self.norms = {p.name: p.gradient.rms for p in run.parameters if p.gradient is not None}
        scalars = _scalars(values, last, report.findings)
        said = [f"{f.severity.value}[{f.code}] {f.name}: {f.message}" for f in report.findings]
        forecasts = [f.message for f in self.forecasts()]
        self._journal.line("sample", step=step, **scalars, findings=said, forecasts=forecasts)
        if self._log is not None:
            self._log(step, scalars)
        return self._confirmed({_site(f): f for f in report.findings if _is_error(f)})

    def accept(self, findings: list[Finding]) -> None:
        """What has been explained is not news any more."""
        self._accepted = (self._accepted or set()) | {_site(finding) for finding in findings}

    def forecasts(self) -> list[Finding]:
        """Where the trends meet a limit."""
        precision = self.last.precisions[0].name if self.last is not None and self.last.precisions else "float32"
        found = list(self.trends.forecasts(precision, self._places))
        for finding in found:
            finding.path = self._facts.path
        return found

    def _confirmed(self, errors: dict[Site, Finding]) -> Finding | None:
        if self._accepted is None:
            self._accepted = set(errors)
            return None
        new = {key: finding for key, finding in errors.items() if key not in self._accepted}
        confirmed = next((finding for key, finding in new.items() if key in self._suspects), None)
        self.unconfirmed = bool(new) and confirmed is None
        self._suspects = set(new)
        return confirmed


def _site(finding: Finding) -> Site:
    """What is the same finding in whatever precisions it was looked for."""
    return finding.code, finding.module, finding.op, finding.phase


def _is_error(finding: Finding) -> bool:
    return finding.severity is Severity.ERROR and finding.status == "new"


def _report(trace: Trace, facts: SubjectFacts) -> SubjectReport:
    request = ScanRequest(facts.path, precisions=[trace.runs[0].precision])
    report = Report(__version__, [report_on(trace, request)])
    settle(report, [request])
    return report.runs[0]


def _scalars(values: dict[Any, float], step: Step | None, findings: list[Finding]) -> dict[str, float]:
    """What a logger plots."""
    scalars = {f"{name}/{where}" if where else name: value for (name, where), value in values.items()}
    if step is not None:
        numbers = {"loss": step.loss, "gradient norm": step.gradient_norm, "rate": step.rate, "scale": step.scale}
        scalars |= {key: value for key, value in numbers.items() if value is not None}
    for finding in findings:
        scalars[f"findings/{finding.name}"] = scalars.get(f"findings/{finding.name}", 0.0) + 1.0
    return scalars


def _part(parameter: Tensor) -> Tensor:
    flat = parameter.detach().reshape(-1)
    return flat[:: 1 + (flat.numel() - 1) // SAMPLE].clone() if flat.numel() else flat.clone()
