"""Whether a fix is proven: two scans compared, one of the model as it was and one of the edited model.

Proven means all of this: the finding is gone, and no error or warning is new, in the same precisions, seeds and batches; what
ran before runs, and no verdict is worse; an edit that keeps the function agrees with the original in outputs, loss and every
parameter gradient where that was finite; one that changes it by design brings the loss at least as low over the same steps; and
the state in which a latent finding broke the original breaks nothing.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.agreement import agreement
from stabdiag.repair.attempt import Attempt
from stabdiag.repair.outcome import Proof, Proven, Reason, Refused
from stabdiag.rule import rule_of

SLACK = 0.02
"""Share of the original's fall by which the loss may stay above: steps on one batch repeat to within a hundredth."""
OF_THE_FUNCTION = ("start", "depth", "activation")
"""Kinds of findings that say what a model computes, not how it rounds."""
_WORSE = {"safe": 0, "safe-with-scaling": 1, "at-risk": 2, "fails": 3, "not-run": 4}


def judge(attempt: Attempt, before: SubjectReport, after: SubjectReport) -> Proof:
    """The verdict on an attempt, from full scans of the state it was tried on and of the edited one."""
    refused = screen(attempt, before, after) or _held(before, after)
    if refused is not None:
        return refused
    proof, new = _function(attempt, before, after), _new(before, after)
    if new is None or not isinstance(proof, Proven):
        return proof
    if proof.difference is None:  # nothing shows that the function is the one that was there
        return Refused(Reason.NEW_FINDING, new.code, finding=new)
    return replace(proof, uncovers=new.code)


def screen(attempt: Attempt, before: SubjectReport, after: SubjectReport) -> Refused | None:
    """What already a small scan of the edited model shows against it; None where it shows nothing.

    A finding about the function itself (its data, initialisation, course over depth) cannot be the doing of an edit that keeps
    the function: the original's numbers hid it. Whether the function is kept, only the whole proof tells.
    """
    finding = attempt.finding
    if after.error is not None:
        return Refused(Reason.NOT_SCANNED, error=after.error)
    still = like(after, finding)
    if len(still) >= len(like(before, finding)):
        return Refused(Reason.STILL_FOUND, finding=still[0])
    found = _new(before, after, hidden=not attempt.keeps_function)
    return Refused(Reason.NEW_FINDING, found.code, finding=found) if found is not None else None


def _new(before: SubjectReport, after: SubjectReport, *, hidden: bool = True) -> Finding | None:
    """The first error or warning that was not there; hidden: those about the function itself, too."""
    new = (f for f in after.findings if is_loud(f) and len(like(after, f)) > len(like(before, f)))
    return next((f for f in new if hidden or rule_of(f).kind not in OF_THE_FUNCTION), None)


def is_loud(finding: Finding) -> bool:
    """An error or a warning that nobody has accepted."""
    return finding.severity is not Severity.INFO and finding.status == "new"


def like(report: SubjectReport, finding: Finding) -> list[Finding]:
    """Findings of the same code that are at least as severe. They are counted, not matched by place: an edit moves lines and
    wraps modules."""
    return [
        f for f in report.findings if f.code == finding.code and f.severity.rank >= finding.severity.rank and f.status == "new"
    ]


def _held(before: SubjectReport, after: SubjectReport) -> Refused | None:
    """The same was scanned, and no verdict is worse."""
    missing = [name for name in before.ran if name not in after.ran]
    now = {row.name: row.verdict for row in after.precisions}
    missing += [row.name for row in before.precisions if row.verdict != "not-run" and now.get(row.name, "not-run") == "not-run"]
    if missing:
        return Refused(Reason.NOT_RUN, missing[0])
    for key in ("batches", "seeds"):
        if after.coverage.get(key, 0) < before.coverage.get(key, 0):
            return Refused(Reason.LESS_PROBED, key)
    for row in before.precisions:
        if _WORSE[now.get(row.name, "not-run")] > _WORSE[row.verdict]:
            return Refused(Reason.WORSE_VERDICT, row.name)
    return _breaks_again(after)


def _breaks_again(after: SubjectReport) -> Refused | None:
    """A state in which the model breaks, unless it does so on the line of another finding, which is repaired by itself."""
    elsewhere = {(f.location.path, f.location.line) for f in after.findings if is_loud(f) and f.location is not None}
    for state in after.replayed:
        if state.broken and state.place not in elsewhere:
            there = (f for f in after.findings if f.location is not None and (f.location.path, f.location.line) == state.place)
            return Refused(Reason.BREAKS_AGAIN, state.broken, finding=next(there, None))
    return None


def _function(attempt: Attempt, before: SubjectReport, after: SubjectReport) -> Proof:
    """The function is the same, or it descends at least as far."""
    outside = bool(attempt.state.after_build) and not attempt.fix.diff
    weakened = attempt.finding.severity is Severity.ERROR and any(
        f.code == attempt.finding.code and f.severity is Severity.WARNING for f in after.findings
    )
    if all(remedy.of_training for remedy in attempt.remedies):
        refused = _training(after)
        return refused if refused is not None else Proven(outside=outside, weakened=weakened)
    if attempt.keeps_function:
        same = agreement(before.samples, after.samples, moved=attempt.moves_output)
        if isinstance(same, Refused):
            return same
        if same is not None and not needs_descent(attempt, before):
            return Proven(same.difference, same.logits, outside=outside, weakened=weakened)
    falls = _descent(before.descent, after.descent)
    return falls if isinstance(falls, Refused) else Proven(descent=falls, outside=outside, weakened=weakened)


def needs_descent(attempt: Attempt, before: SubjectReport) -> bool:
    """Whether the proof of an attempt compares losses over steps: by design, or because the original has no finite loss."""
    if all(remedy.of_training for remedy in attempt.remedies):
        return False
    loss = before.samples.loss
    return not attempt.keeps_function or loss is None or not isfinite(loss)


def _descent(before: list[float], after: list[float]) -> tuple[float, float] | Refused:
    """(lowest loss before, lowest loss after), the second at most a little above the first."""
    if not after or not all(isfinite(loss) for loss in after) or not min(after) < after[0]:
        return Refused(Reason.DESCENDS_LESS, before=after[0] if after else None, after=after[-1] if after else None)
    if not before or not all(isfinite(loss) for loss in before):
        return float("nan"), min(after)
    lowest = min(before)
    if min(after) > lowest + SLACK * (before[0] - lowest):
        return Refused(Reason.DESCENDS_LESS, before=lowest, after=min(after))
    return lowest, min(after)


def _training(report: SubjectReport) -> Refused | None:
    """What the training steps of a scan, where there were any, say against a setting."""
    curves: dict[tuple[str, int], list[float]] = {}
    for row in report.training.get("rows", ()):
        curves.setdefault((row["precision"], row["seed"]), []).append(row["loss"])
    first = next(iter(curves.values()), [])
    if curves and not any(curve[-1] < curve[0] for curve in curves.values()):
        return Refused(Reason.DESCENDS_LESS, before=first[0], after=first[-1])
    return None
