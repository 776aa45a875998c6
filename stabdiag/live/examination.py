"""A step that was kept, judged: played with full recording in the author's precision and others, then by the ordinary rules."""

from __future__ import annotations

from typing import Any

import torch

from stabdiag import __version__
from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import Report, SubjectReport
from stabdiag.live.culprit import Case, Culprit, Kind
from stabdiag.live.player import Player
from stabdiag.recording.reference import Reference
from stabdiag.rule import all_rules
from stabdiag.rules import sd807_loss_spike
from stabdiag.scanning.pipeline import report_on
from stabdiag.scanning.settle import settle
from stabdiag.settings.request import DEFAULT_PRECISIONS, ScanRequest
from stabdiag.trace import Location, NotRun, Run, Trace

SPIKE = "loss spike"
_NOT_THE_MODELS = (Kind.COMPILER, Kind.HARDWARE, Kind.LOSS, Kind.OPTIMIZER)
_THE_MODELS = (Kind.MODEL, Kind.FORMAT)


def sampled(player: Player) -> Trace:
    """The step recorded once, as it is: an ordinary Trace with one run, without a copy of the weights."""
    trace = Trace(player.facts)
    recorder = player.recorder()
    with player.stage(recorder, player.precision, emulate=False, share=True) as stage:
        trace.runs.append(recorder.record(stage, scale=player.scale))
    return trace


def examined(player: Player, device: torch.device | None = None) -> Trace:
    """The step in the author's precision and those of a scan, each compared with float64.

    The author's comes first, with the author's random state: its draws are given to all others.
    """
    own = player.precision
    trace, reference = Trace(player.facts), Reference()
    recorder = player.recorder(device=device)
    _record(recorder, player, own, measure=False)
    wide = _record(recorder, player, "float64", keep=reference, measure=False)
    if wide.error is None:
        trace.runs.append(wide)
    else:
        trace.not_run.append(NotRun("float64", wide.error))
    for name in dict.fromkeys(("float32", own, *DEFAULT_PRECISIONS)):
        run = _record(recorder, player, name, against=reference if wide.error is None else None)
        trace.runs.append(run)
        if run.error is not None:
            trace.not_run.append(NotRun(name, run.error))
    return trace


def _record(recorder: Any, player: Player, name: str, **how: Any) -> Run:
    native = name == player.precision or name in ("float64", "float32")
    with player.stage(recorder, name, emulate=False if native else None) as stage:
        run: Run = recorder.record(stage, scale=player.scale, **how)
    return run


def report(trace: Trace, case: Case, found: Culprit, facts: dict[str, Any]) -> SubjectReport:
    """Judge a trip. The finding that explains it comes first and names the culprit: a rule's, or SD807 where none has one.

    Args:
        trace: from `examined`.
        facts: of the trip, see `stabdiag.rules.sd807_loss_spike`.
    """
    request = ScanRequest(case.player.facts.path, precisions=[p for p in trace.precisions if p != "float64"])
    judged = report_on(trace, request)
    main = next((f for f in judged.findings if _explains(f, case.player.precision)), None)
    if main is None or found.kind in _NOT_THE_MODELS or (facts["kind"] == SPIKE and found.kind not in _THE_MODELS):
        where = {key: found.evidence[key] for key in ("module", "op", "phase") if key in found.evidence}
        at = Location(**facts["location"]) if facts.get("location") else place_of(case.player)
        main = sd807_loss_spike.trip(trace, facts | where | {"culprit": found.kind.value}, at)
        judged.findings.append(main)
    main.notes.insert(0, f"cause: {found.sentence}")
    main.evidence |= {"culprit": {"kind": found.kind.value, **found.evidence}, "step": facts["step"]}
    settle(Report(__version__, [judged]), [request])
    judged.findings.sort(key=lambda finding: finding is not main)
    return judged


def _explains(finding: Finding, precision: str) -> bool:
    """Whether a finding is an error about numbers that are not finite in a precision, or what leads to them."""
    rules = all_rules()
    codes = [finding, *finding.consequences]
    concerned = any(precision in f.precisions for f in codes)
    return finding.severity is Severity.ERROR and concerned and any(rules[f.code].kind == "range" for f in codes)


def first_wrong(player: Player) -> Player:
    """Of several micro-batches, the first whose loss or gradient is not finite; the player itself where that is all of it."""
    goals = player.program.goals
    if not player.program.seen or len(goals) < 2:
        return player
    for goal in goals:
        alone = Player(player.program, player.model, player.facts, player.scale, [goal])
        if not alone.outcome().finite:
            return alone
    return player


def place_of(player: Player) -> Location | None:
    """The author's line that a step is about when no op is: where the gradient starts, else where the model is called."""
    calls = [call for call in player.program.calls if call.location is not None]
    return calls[-1].location if calls else None
