"""Whether a fix is proven: two scans compared, one of the model as it was and one of the edited model."""

from __future__ import annotations

from math import isfinite

from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.attempt import Attempt
from stabdiag.repair.measured import measured

OUTSIDE = "the model is built outside this file: call this once it is built"
AGREEMENT = 1e-4
"""Largest difference of outputs, relative to the largest original one, that an edit which keeps the function may make.

Outputs are those of the float64 run, where a stable form and what it replaces differ by rounding only; the rest is room for
epsilons that the stable form does without."""


def judge(attempt: Attempt, before: SubjectReport, after: SubjectReport) -> None:
    """Fill in the fix: `proven`, before → after and, where it is not proven, why."""
    fix, finding = attempt.fix, attempt.finding
    fix.before, fix.after = measured(finding, before), measured(finding, after)
    refused = _refusal(attempt, before, after)
    fix.proven = refused is None
    fix.note = refused if refused is not None else _what_changed(attempt, before, after)
    if fix.proven and any(f.code == finding.code and f.severity is Severity.WARNING for f in after.findings):
        fix.note = (
            f"an error before, a warning now; {fix.note}".removesuffix("; ") if finding.severity is Severity.ERROR else fix.note
        )


def _refusal(attempt: Attempt, before: SubjectReport, after: SubjectReport) -> str | None:
    finding = attempt.finding
    if after.error is not None:
        return f"the edited model could not be scanned: {after.error.message}"
    still = like(after, finding)
    if len(still) >= len(like(before, finding)):
        return f"still found: {still[0].message}"
    errors = [f for f in after.findings if f.severity is Severity.ERROR and f.status == "new"]
    new = [f for f in errors if len(like(after, f)) > len(like(before, f))]
    if new:
        return f"brings {new[0].code}: {new[0].message}"
    if any(remedy.kind == "training" for remedy in attempt.remedies) and (worse := _loss_rises(after)):
        return worse
    if _keeps_function(attempt) and (difference := _difference(before.output_sample, after.output_sample)) is not None:
        loss = _difference(before.loss_sample, after.loss_sample)
        if difference > AGREEMENT and not (_moves_output(attempt) and (loss is None or loss <= AGREEMENT)):
            return f"changes the outputs by {difference:.1e} of the largest"
    return None


def _what_changed(attempt: Attempt, before: SubjectReport, after: SubjectReport) -> str:
    """What an author wants to know about a proven fix."""
    note = "" if attempt.fix.diff or not attempt.state.after_build else OUTSIDE
    difference = _difference(before.output_sample, after.output_sample)
    if all(remedy.kind == "training" for remedy in attempt.remedies):
        return note
    if not _keeps_function(attempt):
        return f"{note}; changes the function by design".removeprefix("; ")
    if difference is None:
        return note
    if difference > AGREEMENT:
        loss = _difference(before.loss_sample, after.loss_sample)
        same = f"the loss agrees within {loss:.1e}" if loss is not None else "the loss was not finite before"
        return f"the model returns logits now; {same}"
    return f"outputs agree within {difference:.1e} of the largest" if difference else "outputs are unchanged"


def _keeps_function(attempt: Attempt) -> bool:
    return all(remedy.keeps_function for remedy in attempt.remedies)


def _moves_output(attempt: Attempt) -> bool:
    """Whether an edit changed what the model returns and what the loss does with it."""
    changed = [line[1:].strip() for line in attempt.fix.diff.splitlines()[2:] if line.startswith("-")]
    return len(attempt.fix.diff.split("\n@@")) > 2 and len(changed) > 1


def like(report: SubjectReport, finding: Finding) -> list[Finding]:
    """Findings of the same code that are at least as severe. They are counted, not matched by place: an edit moves lines and
    wraps modules."""
    return [
        f for f in report.findings if f.code == finding.code and f.severity.rank >= finding.severity.rank and f.status == "new"
    ]


def _difference(before: list[float], after: list[float]) -> float | None:
    """Largest difference where both are finite, relative to the largest original value; None when they cannot be compared."""
    if len(before) != len(after) or not before:
        return None
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if isfinite(a) and isfinite(b)]
    largest = max((abs(a) for a, _ in pairs), default=0.0)
    return max(abs(a - b) for a, b in pairs) / largest if largest else None


def _loss_rises(report: SubjectReport) -> str:
    """Why the training steps of a scan, where there were any, speak against a setting; "" when they do not."""
    curves: dict[tuple[str, int], list[float]] = {}
    for row in report.training.get("rows", ()):
        curves.setdefault((row["precision"], row["seed"]), []).append(row["loss"])
    first = next(iter(curves.values()), [])
    if curves and not any(curve[-1] < curve[0] for curve in curves.values()):
        return f"the loss does not go down: {first[0]:.3g} → {first[-1]:.3g}"
    return ""
