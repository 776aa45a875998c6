"""Remedies: what a remedy is, and the catalogue of all of them.

A remedy is an entry of the table `REMEDIES` of one family in `stabdiag/repair/remedies/`. Its title is imperative ("Initialise
the biases at zero"), its reason says when it helps, what it changes and where it is from. It makes one kind of change:

    Rewrite(rules)          expressions of the user's file that match a pattern, replaced by a template
    Edit(make)              make(source, case) -> the user's file, edited
    Statements(make)        make(case) -> lines about `model`, run once it is built
    Settings(make)          make(case) -> fields of the scan request that stand for a training setting

`None` says that the remedy does not apply here. Which remedies may repair a finding is the rule's knowledge: its findings name
the fixes to suggest, `REMEDIES` in its file names further ones to try. Remedies read the case and the source text only; they
import no torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.rewrite import Rule, rewrite, rewrite_only
from stabdiag.repair.editing.source import Source, with_torch
from stabdiag.rule import rule_of
from stabdiag.settings.request import ScanRequest


@dataclass(frozen=True)
class Case:
    """What a remedy may read: the finding to repair, the report it stands in, and the scan that was asked for."""

    finding: Finding
    report: SubjectReport
    request: ScanRequest


@dataclass(frozen=True)
class Edit:
    """A change of the user's file."""

    make: Callable[[Source, Case], str | None]

    def text(self, source: Source, case: Case) -> str | None:
        """The file, edited; None where nothing changes."""
        text = self.make(source, case)
        return with_torch(text) if text is not None and text != source.text else None


@dataclass(frozen=True)
class Rewrite:
    """A change of the user's file by patterns.

    Attributes:
        rules: (pattern, template) pairs, see `stabdiag.repair.editing.pattern`; the first that fits at the finding's place.
        anywhere: where none fits there, the one call of the file that a pattern fits: for findings that mark a layer, where
            the function behind it is meant.
    """

    rules: Sequence[Rule]
    anywhere: bool = False

    def text(self, source: Source, case: Case) -> str | None:
        """The file, edited; None where nothing fits."""
        text = rewrite(source, case.finding.location, self.rules)
        if text is None and self.anywhere:
            text = rewrite_only(source, self.rules)
        return with_torch(text) if text is not None and text != source.text else None


@dataclass(frozen=True)
class Statements:
    """Lines about `model`, run once it is built.

    Attributes:
        make: gives them.
        calls: where they initialise parameters: parameter name -> call with `{}` for the parameter. They take the place of the
            author's own initialisations where these are statements in the file.
    """

    make: Callable[[Case], list[str] | None]
    calls: Callable[[Case], dict[str, str]] = lambda case: {}


@dataclass(frozen=True)
class Settings:
    """Fields of the scan request that stand for a training setting."""

    make: Callable[[Case], dict[str, Any] | None]


@dataclass(frozen=True, eq=False)
class Remedy:
    """One remedy.

    Attributes:
        name: unique, with hyphens. `<name>-function` is the same for calls where `<name>` is for modules.
        title: what is done, imperative.
        change: how.
        reason: when it helps, what it changes, its source.
        keeps_function: whether outputs, loss and gradients must stay what they were where they were finite; a remedy that
            changes the function by design has to train at least as well instead.
        remark: what an author should know about the change in this case, such as the margin of a constant.
    """

    name: str
    title: str
    change: Edit | Rewrite | Statements | Settings
    reason: str
    keeps_function: bool = False
    remark: Callable[[Case], str] = lambda case: ""

    @property
    def is_stable_form(self) -> bool:
        """Whether it writes the same expression in another way."""
        return isinstance(self.change, Rewrite) and self.keeps_function

    @property
    def of_training(self) -> bool:
        """Whether it changes how the model is trained, and nothing of the model."""
        return isinstance(self.change, Settings)

    @property
    def of_source(self) -> bool:
        """Whether it edits a line of the user's file."""
        return isinstance(self.change, Edit | Rewrite)


@cache
def all_remedies() -> dict[str, Remedy]:
    """Every remedy by name, in the order in which they are tried."""
    import stabdiag.repair.remedies as package

    tables = [importlib.import_module(f"{package.__name__}.{family}").REMEDIES for family in package.FAMILIES]
    return {remedy.name: remedy for table in tables for remedy in table}


def named(name: str) -> list[Remedy]:
    """What a rule's suggestion stands for: the remedy of that name for modules, then the one for calls."""
    return [all_remedies()[n] for n in (name, f"{name}-function") if n in all_remedies()]


def remedies_for(finding: Finding) -> Iterator[Remedy]:
    """Those that may repair a finding: first the ones it names, in that order, then the others of its rule; stable forms, which
    change nothing but rounding, before all others."""
    first = [remedy for fix in finding.fixes for remedy in named(fix.name)]
    further = rule_of(finding).remedies
    every = dict.fromkeys((*first, *(remedy for name, remedy in all_remedies().items() if name in further)))
    yield from sorted(every, key=lambda remedy: not remedy.is_stable_form)
