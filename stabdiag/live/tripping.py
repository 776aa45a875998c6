"""A step that went wrong: explained, printed in the ordinary form, kept as a capsule, and reported to whoever trains."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from stabdiag import __version__
from stabdiag.errors import UserError
from stabdiag.judging.report import Report, SubjectReport
from stabdiag.live import capsule, examination
from stabdiag.live.culprit import Case, Culprit, Kind, culprit
from stabdiag.live.journal import Journal
from stabdiag.live.watched import Watched
from stabdiag.reports import text
from stabdiag.rules import sd807_loss_spike
from stabdiag.scanning.settle import settle
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Trace, containment


class TrippedError(RuntimeError):
    """A step went wrong. `report` holds the findings, `capsule` the folder that replays it; None when it was not written."""

    def __init__(self, message: str, report: Report, capsule: Path | None) -> None:
        super().__init__(message)
        self.report = report
        self.capsule = capsule


@dataclass
class Trip:
    """What happened.

    Attributes:
        kind: "loss not finite", "gradient not finite", "loss spike", "loss scale collapse", …
        step: number, from 0; loss, gradient_norm: of it, None where unknown.
        limit: of the loss, for a spike.
        optimizer: number of the one that was about to step; location: where that is called, as a dict.
        found: what the optimizer did, where the weights broke in its step.
    """

    kind: str
    step: int
    loss: float | None = None
    gradient_norm: float | None = None
    limit: float | None = None
    optimizer: int | None = None
    location: dict[str, Any] | None = None
    found: Culprit | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """As plain data, for the capsule and for `stabdiag.rules.sd807_loss_spike`."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "found"}


@dataclass
class Trips:
    """Concludes trips.

    Attributes:
        watched: the models; optimizers: whose state goes into a capsule; journal: where to write; capsules: how many stay.
        reports: one per trip so far.
    """

    watched: Watched
    optimizers: list[torch.optim.Optimizer]
    journal: Journal
    capsules: int
    reports: list[SubjectReport] = field(default_factory=list)

    def conclude(self, report: SubjectReport, case: Case, trip: Trip, earlier: SubjectReport | None) -> TrippedError:
        """Print the report of a trip, write the capsule and a line in the journal; what may be raised now.

        `earlier` is the report of the last sampled step, of which a capsule keeps the findings.
        """
        self.reports.append(report)
        finding = report.findings[0]
        kind = finding.evidence["culprit"]["kind"]
        said = f"stabdiag: {trip.kind} at step {trip.step:,}"
        place: Path | None = None
        facts = trip.facts | {"finding": finding.code, "culprit": kind, "model": self.watched.file()}
        facts["last"] = [f"{f.code} {f.message}" for f in (earlier.findings if earlier is not None else [])]
        try:
            if self.capsules:
                place = capsule.write(self.journal.directory, case, facts, self.optimizers, self.capsules)
                said += f"; `stabdiag replay {place}` runs it again ({capsule.size(place) / 1e6:.1f} MB)"
        except UserError as error:
            said += f"; no capsule: {error}"
        whole = Report(__version__, [report])
        print(f"\n{text.render(whole)}{said}", file=sys.stderr)
        at = finding.location
        self.journal.line(
            "trip",
            step=trip.step,
            kind=trip.kind,
            finding=f"{finding.severity.value}[{finding.code}] {finding.message}",
            culprit=kind,
            path=at.path if at is not None else None,
            line=at.line if at is not None else None,
            capsule=str(place) if place is not None else None,
        )
        return TrippedError(f"{trip.kind} at step {trip.step}: {finding.message}", whole, place)


def explained(case: Case, trip: Trip, norms: dict[str, float]) -> SubjectReport:
    """The report of a trip. A step that cannot be run again, and a fault of ours, still stop the training.

    `norms` are root mean squares of the gradients when they were last recorded, by parameter.
    """
    overwritten = case.player.program.overwritten
    if overwritten:
        return _unexplained(
            case, trip, f"the step cannot be run again: `{overwritten[0]}` was overwritten after the model read it"
        )
    try:
        return _explained(case, trip, norms)
    except Exception as error:
        if containment.STRICT:
            raise
        return _unexplained(case, trip, f"the step could not be run again ({type(error).__name__}: {error})")


def _explained(case: Case, trip: Trip, norms: dict[str, float]) -> SubjectReport:
    case.player = examination.first_wrong(case.player)
    found = trip.found or culprit(case)
    trace = examination.examined(case.player)
    return examination.report(trace, case, found, trip.facts | {"grown": _grown(trace, norms)})


def _unexplained(case: Case, trip: Trip, why: str) -> SubjectReport:
    """The report of a trip of which nothing more is known than that it happened."""
    facts = trip.facts | {"culprit": Kind.MODEL.value, "detail": why}
    finding = sd807_loss_spike.trip(Trace(case.player.facts), facts, examination.place_of(case.player))
    finding.evidence["culprit"] = {"kind": Kind.MODEL.value}
    report = Report(__version__, [SubjectReport(case.player.facts, findings=[finding], rules_run=[finding.code])])
    settle(report, [ScanRequest(case.player.facts.path)])
    return report.runs[0]


def _grown(trace: Trace, norms: dict[str, float]) -> tuple[str, float] | None:
    """The parameter whose gradient grew most since it was last recorded."""
    run = next((run for run in trace.runs if run.precision != "float64"), None)
    growth = [
        (p.gradient.rms / norms[p.name], p.name)
        for p in (run.parameters if run is not None else ())
        if p.gradient is not None and norms.get(p.name) and isfinite(p.gradient.rms)
    ]
    factor, name = max(growth, default=(0.0, ""))
    return (name, factor) if factor > 2 else None
