"""Fixes tried: every candidate edit is made, and the edited model is scanned afresh with the same probes.

Proven means: the finding is gone, no new error appeared, and the outputs are what they were where they were finite (or the
remedy changes the function by design and says so). Fixes are accepted one after the other on top of what was accepted before,
so that those which interact are proven together; where none helps alone, pairs are tried. Training settings come last, for what
no edit of the model repairs: an edit that makes one unnecessary is the smaller fix.

A candidate is first scanned in the finding's widest precision with one batch and one initialisation, which is a third of the
work, and in full only when it stands that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.attempt import Attempt, State, apply, candidates
from stabdiag.repair.proof import judge, like
from stabdiag.rule import KINDS, rule_of
from stabdiag.settings.request import ScanRequest

Scan = Callable[[ScanRequest], SubjectReport]
TRIES_PER_FINDING = 8
PAIRS_PER_FINDING = 4


@dataclass
class Outcome:
    """What fixing one subject came to.

    Attributes:
        before, after: the scans of the original and of the state with all accepted fixes.
        attempts: everything that was tried, the proven ones first.
        accepted: the proven attempts that make up `state`, in order.
        left: the wanted findings of `after`, errors and warnings.
    """

    before: SubjectReport
    after: SubjectReport
    attempts: list[Attempt]
    accepted: list[Attempt]
    state: State
    left: list[Finding] = field(default_factory=list)


def prove(
    request: ScanRequest,
    scan: Scan,
    wanted: Callable[[Finding], bool] = lambda finding: True,
    before: SubjectReport | None = None,
) -> Outcome:
    """Try the remedies of every new error and warning, causes first, until the scan is clean or nothing is left to try.

    Args:
        request: the scan of the model as it is.
        scan: runs a request.
        wanted: which findings to repair.
        before: the report of `request` where it is at hand.
    """
    before = before or scan(request)
    outcome = Outcome(before, before, [], [], State())
    for kinds in (("source", "model"), ("training",)):
        given_up: set[tuple[str, str, str]] = set()
        while (finding := _next(outcome.after, wanted, given_up)) is not None:
            for attempt in _tries(finding, outcome, request, scan, kinds):
                outcome.attempts.append(attempt)
                if attempt.fix.proven and attempt.report is not None:
                    outcome.accepted.append(attempt)
                    outcome.state, outcome.after = attempt.state, attempt.report
                    _drop_what_it_replaces(outcome, request, scan)
                    break
            else:
                given_up.add(_key(finding))
    outcome.attempts.sort(key=lambda a: a not in outcome.accepted)
    outcome.left = [f for f in outcome.after.findings if _is_loud(f) and wanted(f)]
    return outcome


def _drop_what_it_replaces(outcome: Outcome, request: ScanRequest, scan: Scan) -> None:
    """Leave out a setting that made an error a warning once another has removed that: a loss scale, where float16 goes."""
    settings = [a for a in outcome.accepted if a.remedy.kind == "training"]
    replaced = next((a for a in settings[:-1] if a.finding.code == settings[-1].finding.code), None)
    if replaced is None:
        return
    others = [a for a in settings if a is not replaced]
    before = [a for a in outcome.accepted if a.remedy.kind != "training"]
    state = before[-1].state if before else State()
    for attempt in others:
        again = apply(attempt.remedy, attempt.finding, state, request, outcome.before)
        if again is None:
            return
        state, attempt.state, attempt.fix.diff = again.state, again.state, again.fix.diff
    report = scan(state.request(request))
    if report.error is None and len(_loud(report)) <= len(_loud(outcome.after)):
        outcome.state, outcome.after, outcome.accepted = state, report, [*before, *others]
        replaced.fix.proven, replaced.fix.note = False, f"not needed with {others[-1].fix.name}"


def annotate(report: SubjectReport, outcome: Outcome) -> None:
    """Put what was tried into the fixes of the report's findings, proven ones first."""
    for finding in report.findings:
        tried = [a.fix for a in outcome.attempts if _key(a.finding) == _key(finding)]
        names = {fix.name for fix in tried}
        rest = [fix for fix in finding.fixes if fix.name not in names]
        finding.fixes = sorted(tried, key=lambda fix: not fix.proven) + rest


def _next(report: SubjectReport, wanted: Callable[[Finding], bool], given_up: set[tuple[str, str, str]]) -> Finding | None:
    """The finding to repair next: causes before their effects; the order of the report decides among those of one kind."""
    open_ones = [f for f in report.findings if _is_loud(f) and wanted(f) and _key(f) not in given_up]
    return min(open_ones, key=lambda f: (-f.severity.rank, KINDS.index(rule_of(f).kind)), default=None)


def _loud(report: SubjectReport) -> list[Finding]:
    return [f for f in report.findings if _is_loud(f)]


def _is_loud(finding: Finding) -> bool:
    return finding.severity is not Severity.INFO and finding.status == "new"


def _key(finding: Finding) -> tuple[str, str, str]:
    return (finding.code, finding.module, finding.op)


def _tries(finding: Finding, outcome: Outcome, request: ScanRequest, scan: Scan, kinds: tuple[str, ...]) -> Iterator[Attempt]:
    """Attempts with their verdicts: each remedy by itself, then pairs of those that broke nothing."""
    alone: list[Attempt] = []
    possible = (a for a in candidates(finding, outcome.state, request, outcome.after) if a.remedy.kind in kinds)
    for attempt in islice(possible, TRIES_PER_FINDING):
        _try(attempt, outcome.after, request, scan)
        alone.append(attempt)
        yield attempt
    if "source" in kinds:
        yield from islice(_pairs(finding, alone, outcome.after, request, scan), PAIRS_PER_FINDING)


def _pairs(
    finding: Finding, alone: list[Attempt], current: SubjectReport, request: ScanRequest, scan: Scan
) -> Iterator[Attempt]:
    sound = [a for a in alone if a.report is not None and a.report.error is None and not a.fix.note.startswith("changes")]
    for first in sound:
        left = like(first.report, finding) if first.report is not None else []
        for second in sound:
            if second is first or (first.remedy.kind == second.remedy.kind == "source" and not left):
                continue
            assert first.report is not None
            both = apply(second.remedy, left[0] if left else finding, first.state, request, first.report)
            if both is None:
                continue
            both.finding, both.upon = finding, first
            both.fix.name, both.fix.title = f"{first.fix.name}+{both.fix.name}", f"{first.fix.title}; {both.fix.title}"
            both.fix.snippet = "\n".join(s for s in (first.fix.snippet, both.fix.snippet) if s)
            both.fix.diff = first.fix.diff + both.fix.diff
            _try(both, current, request, scan)
            yield both


def _try(attempt: Attempt, current: SubjectReport, request: ScanRequest, scan: Scan) -> None:
    """Scan cheaply, then in full where that speaks for the attempt."""
    full = attempt.state.request(request)
    cheap = _cheap(attempt, full, current)
    if cheap is not None:
        attempt.report = scan(cheap)
        judge(attempt, current, attempt.report)
        if not attempt.fix.proven:
            return
    attempt.report = scan(full)
    judge(attempt, current, attempt.report)


def _cheap(attempt: Attempt, full: ScanRequest, current: SubjectReport) -> ScanRequest | None:
    """The smallest scan that can still show the finding; None where that is the whole of it."""
    if attempt.remedy.kind == "training" or rule_of(attempt.finding).kind in ("training", "scan"):
        return None
    precisions = full.with_declared(current.subject.training).precisions
    shown = next((p for p in precisions if p in attempt.finding.precisions), "float32")
    return replace(full, precisions=[shown], batches=1, seeds=1)
