"""Fixes tried: every candidate edit is made, the edited model is scanned afresh with the same probes, and the two scans are compared.

Proven means: the finding is gone, no new error appeared, and the outputs are what they were where they were finite (or the
remedy changes the function by design and says so). Fixes are accepted one after the other on top of what was accepted before,
so that those which interact are proven together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from stabdiag.editing.built import insert
from stabdiag.editing.source import Source, diff
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.measured import measured
from stabdiag.remedy import Remedy, remedies_for
from stabdiag.report import SubjectReport
from stabdiag.request import ScanRequest

Scan = Callable[[ScanRequest], SubjectReport]
AGREEMENT = 1e-4
"""Largest difference of outputs, relative to the largest original one, that an edit of float32 arithmetic may make: a stable
form rounds differently by a few units of 6e-8 per op; what differs by more computes something else."""
TRIES_PER_FINDING = 6


@dataclass
class State:
    """The subject with the fixes accepted so far.

    Attributes:
        texts: absolute path -> text of every edited file.
        after_build: statements that no file could take.
        settings: fields of the request that stand for training settings.
    """

    texts: dict[str, str] = field(default_factory=dict)
    after_build: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def request(self, original: ScanRequest) -> ScanRequest:
        """The scan of this state."""
        return replace(original, edited=dict(self.texts), after_build=list(self.after_build), **self.settings)


@dataclass
class Attempt:
    """One remedy tried on one finding."""

    finding: Finding
    fix: Fix
    remedy: Remedy
    state: State


@dataclass
class Outcome:
    """What fixing one subject came to.

    Attributes:
        before, after: the scans of the original and of the state with all accepted fixes.
        attempts: everything that was tried, in order.
        accepted: the proven attempts that make up `state`.
    """

    before: SubjectReport
    after: SubjectReport
    attempts: list[Attempt]
    accepted: list[Attempt]
    state: State


def prove(request: ScanRequest, scan: Scan, wanted: Callable[[Finding], bool] = lambda finding: True) -> Outcome:
    """Try the remedies of every new error and warning, worst first, until the scan is clean or nothing is left to try."""
    before = current = scan(request)
    outcome = Outcome(before, current, [], [], State())
    given_up: set[tuple[str, str, str]] = set()
    while (finding := _next(current, wanted, given_up)) is not None:
        for attempt in _candidates(finding, outcome.state, request, current):
            outcome.attempts.append(attempt)
            changed = scan(attempt.state.request(request))
            _judge(attempt, current, changed)
            if attempt.fix.proven:
                outcome.accepted.append(attempt)
                outcome.state, outcome.after, current = attempt.state, changed, changed
                break
        else:
            given_up.add(_key(finding))
    _smallest_first(outcome)
    return outcome


def annotate(report: SubjectReport, outcome: Outcome) -> None:
    """Put what was tried into the fixes of the report's findings, proven ones first."""
    for finding in report.findings:
        tried = [a.fix for a in outcome.attempts if _key(a.finding) == _key(finding)]
        names = {fix.name for fix in tried}
        rest = [fix for fix in finding.fixes if fix.name not in names]
        finding.fixes = sorted(tried, key=lambda fix: not fix.proven) + rest


def _next(report: SubjectReport, wanted: Callable[[Finding], bool], given_up: set[tuple[str, str, str]]) -> Finding | None:
    for finding in report.findings:
        if (
            finding.severity is not Severity.INFO
            and finding.status == "new"
            and wanted(finding)
            and _key(finding) not in given_up
        ):
            return finding
    return None


def _key(finding: Finding) -> tuple[str, str, str]:
    return (finding.code, finding.module, finding.op)


def _candidates(finding: Finding, state: State, request: ScanRequest, report: SubjectReport) -> Iterator[Attempt]:
    tries = 0
    for remedy in remedies_for(finding):
        made = _apply(remedy, finding, state, request, report)
        if made is not None and tries < TRIES_PER_FINDING:
            tries += 1
            yield made


def _apply(remedy: Remedy, finding: Finding, state: State, request: ScanRequest, report: SubjectReport) -> Attempt | None:
    """The state with one remedy more, None where it does not apply."""
    fix = next((replace(f) for f in finding.fixes if f.name == remedy.name), None) or Fix(remedy.name, remedy.title)
    if remedy.kind == "training":
        settings = remedy.settings(finding, state.request(request))
        if settings is None:
            return None
        tried = ", ".join(f"{name}={value}" for name, value in settings.items())
        fix.snippet, fix.note = fix.snippet or tried, f"tried with {tried}"
        return Attempt(finding, fix, remedy, replace(state, settings={**state.settings, **settings}))
    target = Path(request.target if Path(request.target).exists() else request.target.rpartition(":")[0])
    if remedy.kind == "model":
        statements = remedy.statements(finding, report)
        if statements is None:
            return None
        fix.snippet = "\n".join(statements)
        source = _source(target, state)
        text = insert(source, report.subject.name, statements) if source is not None else None
        if text is None or source is None:
            fix.note = "the model is built outside this file: call this once it is built"
            return Attempt(finding, fix, remedy, replace(state, after_build=[*state.after_build, *statements]))
        return _edited(finding, fix, remedy, state, target, source.text, text)
    place = finding.location.path if finding.location is not None else ""
    source = _source(_resolved(place, target), state)
    text = remedy.edit(source, finding) if source is not None else None
    if source is None or text is None:
        return None
    return _edited(finding, fix, remedy, state, _resolved(place, target), source.text, text)


def _edited(finding: Finding, fix: Fix, remedy: Remedy, state: State, path: Path, before: str, after: str) -> Attempt:
    fix.diff = diff(before, after, path.name)
    if not fix.snippet:
        fix.snippet = "\n".join(line[1:].strip() for line in fix.diff.splitlines()[2:] if line.startswith("+"))
    return Attempt(finding, fix, remedy, replace(state, texts={**state.texts, str(path.resolve()): after}))


def _resolved(place: str, target: Path) -> Path:
    """The file a location names: below the working directory, or beside the target."""
    return next((p for p in (Path(place), target.parent / place) if p.is_file()), target) if place else target


def _source(path: Path, state: State) -> Source | None:
    """The file as it stands with the accepted fixes; None for what is no file of the user's."""
    if not path.is_file() or "site-packages" in path.resolve().parts:
        return None
    with path.open(encoding="utf-8", newline="") as file:
        text = state.texts.get(str(path.resolve())) or file.read()
    return Source(path.as_posix(), text)


def _judge(attempt: Attempt, before: SubjectReport, after: SubjectReport) -> None:
    """Fill in `proven`, before → after and, where it is not proven, why."""
    fix, finding = attempt.fix, attempt.finding
    fix.before, fix.after = measured(finding, before), measured(finding, after)
    fix.proven = False
    if after.error is not None:
        fix.note = f"the edited model could not be scanned: {after.error.message}"
        return
    still = _like(after, finding)
    if len(still) >= len(_like(before, finding)):
        fix.note = f"still found: {still[0].message}"
        return
    errors = [f for f in after.findings if f.severity is Severity.ERROR]
    new = [f for f in errors if len(_like(after, f)) > len(_like(before, f))]
    if new:
        fix.note = f"brings {new[0].code}: {new[0].message}"
        return
    if attempt.remedy.kind == "training" and (worse := _loss_rises(after)):
        fix.note = worse
        return
    difference = _difference(before.output_sample, after.output_sample)
    if attempt.remedy.keeps_function and difference is not None:
        if difference > AGREEMENT:
            fix.note = f"changes the outputs by {difference:.1e} of the largest"
            return
        agrees = f"outputs agree within {difference:.1e} of the largest" if difference else "outputs are unchanged"
        fix.note = f"{fix.note}; {agrees}".removeprefix("; ")
    elif not attempt.remedy.keeps_function and attempt.remedy.kind != "training":
        fix.note = f"{fix.note}; changes the function by design".removeprefix("; ")
    fix.proven = True


def _like(report: SubjectReport, finding: Finding) -> list[Finding]:
    """Findings of the same code that are at least as severe. They are counted, not matched by place: an edit moves lines and
    wraps modules."""
    return [f for f in report.findings if f.code == finding.code and f.severity.rank >= finding.severity.rank]


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


def _smallest_first(outcome: Outcome) -> None:
    """Keep the accepted fixes in the order in which they were proven; each was needed when it was accepted."""
    outcome.attempts.sort(key=lambda a: a not in outcome.accepted)
