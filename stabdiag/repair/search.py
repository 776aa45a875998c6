"""Fixes tried: every candidate edit is made, and the edited model is scanned afresh with the same probes.

What proven means stands in `stabdiag.repair.proof`. Fixes are accepted one after the other on top of what was accepted
before, so that those which interact are proven together. An edit that repairs its place and uncovers the next defect is
continued with that one's remedies, and both are proven as one. Where no remedy helps alone, pairs of those that broke nothing
are tried. Training settings come last, for what no edit of the model repairs: an edit that makes one unnecessary is the
smaller fix.

A candidate is first scanned in the finding's widest precision with one batch and one initialisation, which is a third of the
work, and in full only when it stands that. Candidates are scanned `jobs` at a time; the order of preference decides among those
that are proven.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.attempt import Attempt, State, apply, candidates
from stabdiag.repair.measured import measured
from stabdiag.repair.outcome import STEPS, Proof, Proven, Reason, Refused, Untested
from stabdiag.repair.proof import is_loud, judge, like, needs_descent, screen
from stabdiag.repair.wording import words
from stabdiag.rule import KINDS, rule_of
from stabdiag.settings.request import ScanRequest

Scan = Callable[[ScanRequest], SubjectReport]
TRIES = 8
"""Remedies that are tried alone for one finding; the others are reported as not tried."""
PAIRS = 4
CONTINUED = 3
"""Remedies that are tried for what an edit uncovers, and how often in a row."""


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
    jobs: int = 1,
) -> Outcome:
    """Try the remedies of every new error and warning, causes first, until the scan is clean or nothing is left to try.

    Args:
        request: the scan of the model as it is.
        scan: runs a request; called from `jobs` threads at a time.
        wanted: which findings to repair.
        before: the report of `request` where it is at hand.
        jobs: candidates scanned at the same time.
    """
    before = before or scan(request)
    outcome = Outcome(before, before, [], [], State())
    search = _Search(request, scan, jobs)
    for training in (False, True):
        given_up: set[tuple[str, str, str]] = set()
        while (finding := _next(outcome.after, wanted, given_up)) is not None:
            tried = search.tries(finding, outcome, training)
            outcome.attempts += tried
            if (proven := next((a for a in tried if a.proven and a.report is not None), None)) is None:
                given_up.add(_key(finding))
                continue
            assert proven.report is not None
            outcome.accepted.append(proven)
            search.repaired.append(finding)
            outcome.state, outcome.after = proven.state, proven.report
    outcome.attempts.sort(key=lambda a: a not in outcome.accepted)
    outcome.left = [f for f in outcome.after.findings if is_loud(f) and wanted(f)]
    return outcome


def annotate(report: SubjectReport, outcome: Outcome) -> None:
    """Put what was tried into the fixes of the report's findings, proven ones first."""
    for finding in report.findings:
        tried = [a.fix for a in outcome.attempts if _key(a.finding) == _key(finding)]
        names = {fix.name for fix in tried}
        rest = [fix for fix in finding.fixes if fix.name not in names]
        finding.fixes = sorted(tried, key=lambda fix: not fix.proven) + rest


def _next(report: SubjectReport, wanted: Callable[[Finding], bool], given_up: set[tuple[str, str, str]]) -> Finding | None:
    """The finding to repair next: causes before their effects; the order of the report decides among those of one kind."""
    open_ones = [f for f in report.findings if is_loud(f) and wanted(f) and _key(f) not in given_up]
    return min(open_ones, key=lambda f: (-f.severity.rank, KINDS.index(rule_of(f).kind)), default=None)


def _key(finding: Finding) -> tuple[str, str, str]:
    return (finding.code, finding.module, finding.op)


@dataclass
class _Search:
    """Makes attempts and has them judged. `repaired`: findings whose fixes were accepted; later ones must not undo them."""

    request: ScanRequest
    scan: Scan
    jobs: int
    repaired: list[Finding] = field(default_factory=list)

    def tries(self, finding: Finding, outcome: Outcome, training: bool) -> list[Attempt]:
        """What was tried for one finding, up to the first that is proven."""
        current = outcome.after
        possible = candidates(finding, outcome.state, self.request, current)
        alone = _different([a for a in possible if a.remedy.of_training is training])
        for attempt in alone[TRIES:]:
            _settle(attempt, Untested(TRIES), current, None)
        tried = self._first_proven(alone[:TRIES], current)
        if not _is_proven(tried):
            for attempt in list(tried):
                tried += self._continued(attempt, current)
                if _is_proven(tried):
                    break
        if not _is_proven(tried) and not training:
            tried += self._first_proven(list(islice(self._pairs(finding, alone[:TRIES], current), PAIRS)), current)
        return tried if _is_proven(tried) else [*tried, *alone[TRIES:]]

    def _first_proven(self, attempts: list[Attempt], current: SubjectReport) -> list[Attempt]:
        """Judge attempts, `jobs` at a time, until one is proven; those behind it are left out."""
        for start in range(0, len(attempts), self.jobs):
            batch = attempts[start : start + self.jobs]
            if self.jobs > 1 and len(batch) > 1:
                with ThreadPoolExecutor(self.jobs) as pool:
                    list(pool.map(lambda attempt: self._try(attempt, current), batch))
            else:
                for attempt in batch:
                    self._try(attempt, current)
            if (first := next((i for i, a in enumerate(batch) if a.proven), None)) is not None:
                return attempts[: start + first + 1]
        return attempts

    def _continued(self, attempt: Attempt, current: SubjectReport, depth: int = CONTINUED) -> list[Attempt]:
        """The remedies of what an edit uncovered, tried on top of it; judged by the finding of the first."""
        uncovered = _uncovered(attempt)
        if uncovered is None or attempt.report is None or depth == 0:
            return []
        further = candidates(uncovered, attempt.state, self.request, attempt.report)
        more = [_joined(attempt, a) for a in islice((a for a in further if not a.remedy.of_training), CONTINUED)]
        tried = self._first_proven(more, current)
        if not _is_proven(tried):
            for next_one in list(tried):
                tried += self._continued(next_one, current, depth - 1)
                if _is_proven(tried):
                    break
        return tried

    def _pairs(self, finding: Finding, alone: list[Attempt], current: SubjectReport) -> Iterator[Attempt]:
        """Two remedies together, of those that broke nothing and left the finding."""
        sound = [a for a in alone if isinstance(a.proof, Refused) and a.proof.reason is Reason.STILL_FOUND]
        for first in sound:
            for second in sound:
                if second is first or (first.remedy.of_source and second.remedy.of_source) or first.report is None:
                    continue
                left = like(first.report, finding)
                both = apply(second.remedy, left[0] if left else finding, first.state, self.request, first.report)
                if both is not None:
                    yield _joined(first, both)

    def _try(self, attempt: Attempt, current: SubjectReport) -> None:
        """Scan cheaply, then in full where that speaks for the attempt."""
        full = attempt.state.request(self.request)
        if (cheap := _cheap(attempt, full, current)) is not None:
            report = self.scan(cheap)
            if (refused := screen(attempt, current, report)) is not None:
                _settle(attempt, refused, current, report)
                return
        if needs_descent(attempt, current):
            full = replace(full, descent=STEPS)
            self._measure_descent(attempt, current)
        report = self.scan(replace(full, states=_states([*self.repaired, attempt.finding])))
        _settle(attempt, judge(attempt, current, report), current, report)

    def _measure_descent(self, attempt: Attempt, current: SubjectReport) -> None:
        """How far the loss of the model falls without the attempt, once for every state."""
        if not current.descent:
            base = attempt.steps[0]
            state = replace(base.state, texts=_texts_before(base))
            full = state.request(self.request)
            small = replace(full, precisions=["float32"], batches=1, seeds=1, steps=0, descent=STEPS)
            current.descent = self.scan(small).descent


def _texts_before(attempt: Attempt) -> dict[str, str]:
    """The edited files without what an attempt did to one of them."""
    if attempt.text is None:
        return attempt.state.texts
    before, after = attempt.text
    return {path: before if text == after else text for path, text in attempt.state.texts.items()}


def _settle(attempt: Attempt, proof: Proof, before: SubjectReport, after: SubjectReport | None) -> None:
    """Note what became of an attempt, in the fix as well."""
    attempt.proof, attempt.report, fix = proof, after, attempt.fix
    fix.proven = None if isinstance(proof, Untested) else isinstance(proof, Proven)
    remark = fix.note if isinstance(proof, Proven) else ""
    fix.note = "; ".join(text for text in (words(proof), remark) if text)
    fix.before = measured(attempt.finding, before)
    fix.after = measured(attempt.finding, after) if after is not None else ""


def _is_proven(attempts: Iterable[Attempt]) -> bool:
    return any(attempt.proven for attempt in attempts)


def _different(attempts: list[Attempt]) -> list[Attempt]:
    """Each edit once: two remedies may come to the same text."""
    seen: list[State] = []
    found = []
    for attempt in attempts:
        if attempt.state not in seen:
            seen.append(attempt.state)
            found.append(attempt)
    return found


def _uncovered(attempt: Attempt) -> Finding | None:
    """What stands in the way of an attempt that repaired its own place: a new finding, the place where the original's state
    breaks the model still, or the same finding elsewhere."""
    proof = attempt.proof
    if not isinstance(proof, Refused) or proof.finding is None:
        return None
    if proof.reason in (Reason.NEW_FINDING, Reason.BREAKS_AGAIN):
        return proof.finding
    elsewhere = attempt.text is not None and not attempt.edited(proof.finding.location)
    return proof.finding if proof.reason is Reason.STILL_FOUND and elsewhere else None


def _joined(first: Attempt, second: Attempt) -> Attempt:
    """Two attempts as one, for the finding of the first."""
    second.finding, second.upon = first.finding, first
    one, two = first.fix, second.fix
    second.fix = replace(
        two,
        name=f"{one.name}+{two.name}",
        title=f"{one.title}; {two.title}",
        snippet="\n".join(text for text in (one.snippet, two.snippet) if text),
        diff=one.diff + two.diff,
    )
    return second


def _cheap(attempt: Attempt, full: ScanRequest, current: SubjectReport) -> ScanRequest | None:
    """The smallest scan that can still show the finding; None where that is the whole of it."""
    if attempt.remedy.of_training or rule_of(attempt.finding).kind in ("training", "scan"):
        return None
    precisions = full.with_declared(current.subject.training).precisions
    shown = next((p for p in precisions if p in attempt.finding.precisions), "float32")
    return replace(full, precisions=[shown], batches=1, seeds=1)


def _states(findings: Iterable[Finding]) -> list[list[dict[str, Any]]]:
    """The states in which latent findings broke the original, as far as their values have places in an edited model."""
    placed = ("input", "parameter", "buffer", "result")
    states = (state for finding in findings for state in finding.states)
    return [state for state in states if all(source["kind"] in placed for source in state)]
