"""Candidates: one remedy applied to the state that earlier ones left, as a request that can be scanned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from libcst import ParserSyntaxError

from stabdiag.finding import Finding, Fix
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.built import insert
from stabdiag.repair.editing.changed import changed_functions, changed_lines, changed_statements
from stabdiag.repair.editing.initial import reinitialised
from stabdiag.repair.editing.source import Source, diff, text_of, with_torch
from stabdiag.repair.editing.training import OF_OPTIMIZER, declare
from stabdiag.repair.outcome import Proof, Proven
from stabdiag.repair.remedy import Case, Edit, Remedy, Rewrite, Settings, Statements, remedies_for
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Location


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


@dataclass(eq=False)
class Attempt:
    """One remedy tried on one finding.

    Attributes:
        finding, remedy: which on what.
        fix: how it is reported.
        state: what it leads to.
        text: the edited file as it was before this remedy and after it, None where no file was edited.
        upon: the attempt that it was tried together with, None when it was tried alone.
        proof: what became of it; report: the scan that it was judged by.
    """

    finding: Finding
    fix: Fix
    remedy: Remedy
    state: State
    text: tuple[str, str] | None = None
    upon: Attempt | None = None
    proof: Proof | None = None
    report: SubjectReport | None = None

    @property
    def steps(self) -> list[Attempt]:
        """What was applied, in order."""
        return [*(self.upon.steps if self.upon is not None else ()), self]

    @property
    def remedies(self) -> list[Remedy]:
        """What was applied, in order."""
        return [step.remedy for step in self.steps]

    @property
    def proven(self) -> bool:
        """Whether it is."""
        return isinstance(self.proof, Proven)

    @property
    def keeps_function(self) -> bool:
        """Whether the model must compute what it did."""
        return all(remedy.keeps_function for remedy in self.remedies)

    @property
    def moves_output(self) -> bool:
        """Whether an edit changes what the model returns together with the loss that takes it."""
        return any("loss" in changed and len(changed) > 1 for changed in map(_functions, self.steps))

    def edited(self, at: Location | None) -> bool:
        """Whether a place in the edited model is on a line that the last edit wrote."""
        return self.text is not None and at is not None and at.line in changed_lines(*self.text)


def _functions(attempt: Attempt) -> set[str]:
    return changed_functions(*attempt.text) if attempt.text is not None else set()


def candidates(finding: Finding, state: State, request: ScanRequest, report: SubjectReport) -> Iterator[Attempt]:
    """Every remedy that applies to a finding, in order of preference."""
    for remedy in remedies_for(finding):
        made = apply(remedy, finding, state, request, report)
        if made is not None:
            yield made


def apply(remedy: Remedy, finding: Finding, state: State, request: ScanRequest, report: SubjectReport) -> Attempt | None:
    """The state with one remedy more, None where it does not apply."""
    title = remedy.title[:1].lower() + remedy.title[1:]
    fix = Fix(remedy.name, next((f.title for f in finding.fixes if f.name == remedy.name), title))
    asked = state.request(request).with_declared(report.subject.training)
    attempt = Attempt(finding, fix, remedy, state)
    case = Case(finding, report, asked)
    target = file_of(request)
    match remedy.change:
        case Settings(make):
            settings = make(case)
            return _trained(attempt, request, settings) if settings is not None else None
        case Statements():
            statements = remedy.change.make(case)
            if statements is None:
                return None
            source, calls = _source(target, state), remedy.change.calls(case)
            text = reinitialised(source, report.initialised, calls) if source is not None else None
            if source is not None and text is not None:
                return _edited(attempt, target, source.text, text) if text != source.text else None
            return _built(attempt, target, report.subject.name, statements)
        case Edit() | Rewrite():
            path = _resolved(finding.location.path if finding.location is not None else "", target)
            source = _source(path, state)
            text = remedy.change.text(source, case) if source is not None else None
            if source is None or text is None:
                return None
            fix.note = remedy.remark(case)
            return _edited(attempt, path, source.text, text)


def file_of(request: ScanRequest) -> Path:
    """The file that a request scans."""
    return Path(request.target if Path(request.target).exists() else request.target.rpartition(":")[0])


def _built(attempt: Attempt, target: Path, name: str, statements: list[str]) -> Attempt:
    """Statements about the model, written where it is built; kept apart where no file holds that place."""
    state = attempt.state
    source = _source(target, state)
    text = insert(source, name, statements) if source is not None else None
    if source is not None and text is not None:
        return _edited(attempt, target, source.text, text)
    attempt.fix.snippet = "\n".join(statements)
    attempt.state = replace(state, after_build=[*state.after_build, *statements])
    return attempt


def _trained(attempt: Attempt, request: ScanRequest, settings: dict[str, Any]) -> Attempt | None:
    """A training setting: declared in the file where that holds it and the request does not set it itself; None where the file
    declares it so already."""
    state = attempt.state
    target, free = file_of(request), ScanRequest(request.target)
    asked = any(getattr(request, name) != getattr(free, name) for name in settings)
    asked |= request.optimizer is not None and bool({*settings} & {*OF_OPTIMIZER})
    source = _source(target, state) if not asked else None
    text = declare(source, settings) if source is not None else None
    if source is not None and text is not None:
        return _edited(attempt, target, source.text, with_torch(text)) if text != source.text else None
    attempt.state = replace(state, settings={**state.settings, **settings})
    return attempt


def _edited(attempt: Attempt, path: Path, before: str, after: str) -> Attempt:
    attempt.fix.diff = diff(before, after, path.name)
    attempt.fix.snippet = changed_statements(before, after)
    attempt.text = (before, after)
    attempt.state = replace(attempt.state, texts={**attempt.state.texts, str(path.resolve()): after})
    return attempt


def _resolved(place: str, target: Path) -> Path:
    """The file a location names: below the working directory, or beside the target."""
    return next((p for p in (Path(place), target.parent / place) if p.is_file()), target) if place else target


def _source(path: Path, state: State) -> Source | None:
    """The file as it stands with the accepted fixes; None for what is no file of the user's, or no Python that can be read."""
    if not path.is_file() or {"site-packages", "dist-packages"} & set(path.resolve().parts):
        return None
    try:
        return _parsed(path.as_posix(), state.texts.get(str(path.resolve())) or text_of(path))
    except (OSError, SyntaxError, UnicodeDecodeError, ParserSyntaxError):
        return None


@lru_cache(maxsize=8)
def _parsed(path: str, text: str) -> Source:
    return Source(path, text)
