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
from stabdiag.repair.editing.changed import changed_statements
from stabdiag.repair.editing.source import Source, diff, text_of, with_torch
from stabdiag.repair.editing.training import OF_OPTIMIZER, declare
from stabdiag.repair.remedy import Remedy, remedies_for
from stabdiag.settings.request import ScanRequest


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
        upon: the attempt that it was tried together with, None when it was tried alone.
        report: the scan that it was judged by.
    """

    finding: Finding
    fix: Fix
    remedy: Remedy
    state: State
    upon: Attempt | None = None
    report: SubjectReport | None = None

    @property
    def remedies(self) -> list[Remedy]:
        """What was applied, in order."""
        return [*(self.upon.remedies if self.upon is not None else ()), self.remedy]


def candidates(finding: Finding, state: State, request: ScanRequest, report: SubjectReport) -> Iterator[Attempt]:
    """Every remedy that applies to a finding, in order of preference."""
    for remedy in remedies_for(finding):
        made = apply(remedy, finding, state, request, report)
        if made is not None:
            yield made


def apply(remedy: Remedy, finding: Finding, state: State, request: ScanRequest, report: SubjectReport) -> Attempt | None:
    """The state with one remedy more, None where it does not apply."""
    fix = next((replace(f) for f in finding.fixes if f.name == remedy.name), None) or Fix(remedy.name, remedy.title)
    if remedy.kind == "training":
        settings = remedy.settings(finding, state.request(request).with_declared(report.subject.training))
        return _trained(finding, fix, remedy, state, request, settings) if settings is not None else None
    target = file_of(request)
    if remedy.kind == "model":
        statements = remedy.statements(finding, report)
        if statements is None:
            return None
        source = _source(target, state)
        text = insert(source, report.subject.name, statements) if source is not None else None
        if text is None or source is None:
            fix.snippet = "\n".join(statements)
            return Attempt(finding, fix, remedy, replace(state, after_build=[*state.after_build, *statements]))
        return _edited(finding, fix, remedy, state, target, source.text, text)
    path = _resolved(finding.location.path if finding.location is not None else "", target)
    source = _source(path, state)
    text = remedy.edit(source, finding) if source is not None else None
    if source is None or text is None:
        return None
    return _edited(finding, fix, remedy, state, path, source.text, text)


def file_of(request: ScanRequest) -> Path:
    """The file that a request scans."""
    return Path(request.target if Path(request.target).exists() else request.target.rpartition(":")[0])


def _trained(
    finding: Finding, fix: Fix, remedy: Remedy, state: State, request: ScanRequest, settings: dict[str, Any]
) -> Attempt | None:
    """A training setting: declared in the file where that holds it and the request does not set it itself; None where the file
    declares it so already."""
    target, free = file_of(request), ScanRequest(request.target)
    asked = any(getattr(request, name) != getattr(free, name) for name in settings)
    asked |= request.optimizer is not None and bool({*settings} & {*OF_OPTIMIZER})
    source = _source(target, state) if not asked else None
    text = declare(source, settings) if source is not None else None
    if source is not None and text is not None:
        if text == source.text:
            return None
        return _edited(finding, fix, remedy, state, target, source.text, with_torch(text))
    return Attempt(finding, fix, remedy, replace(state, settings={**state.settings, **settings}))


def _edited(finding: Finding, fix: Fix, remedy: Remedy, state: State, path: Path, before: str, after: str) -> Attempt:
    fix.diff = diff(before, after, path.name)
    fix.snippet = changed_statements(before, after)
    return Attempt(finding, fix, remedy, replace(state, texts={**state.texts, str(path.resolve()): after}))


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
