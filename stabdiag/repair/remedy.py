"""Remedies: discovery, and what a remedy file offers.

A remedy is one file in `stabdiag/repair/remedies/`. Its first docstring line is its title, imperative ("Initialise the biases
at zero"); the rest says when it helps and what it changes. It defines

    REPAIRS = ("SD201", …)          codes of the rules whose findings it may repair
    KEEPS_FUNCTION = True           whether the repaired model must compute what the original did where that was finite

and exactly one of

    edit(source, finding) -> str | None            the user's file, edited
    statements(finding, trace_facts) -> list[str] | None     lines about `model`, run once it is built
    settings(finding, request) -> dict | None      fields of the scan request that stand for a training setting

None says that the remedy does not apply here. Remedies read the finding and the source text only; they import no torch.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.source import Source, with_torch
from stabdiag.settings.request import ScanRequest


@dataclass(frozen=True)
class Remedy:
    """One remedy, as read from its file. `name` is the file's, with hyphens."""

    name: str
    module: ModuleType

    @property
    def title(self) -> str:
        """What is done, imperative."""
        return (inspect.getdoc(self.module) or self.name).splitlines()[0].rstrip(".")

    @property
    def repairs(self) -> tuple[str, ...]:
        """Codes of the rules it may repair."""
        return tuple(self.module.REPAIRS)

    @property
    def keeps_function(self) -> bool:
        """Whether outputs must stay what they were."""
        return bool(self.module.KEEPS_FUNCTION)

    @property
    def kind(self) -> str:
        """ "source", "model" or "training"."""
        names = {"edit": "source", "statements": "model", "settings": "training"}
        return next(kind for name, kind in names.items() if hasattr(self.module, name))

    def edit(self, source: Source, finding: Finding) -> str | None:
        """The user's file, edited."""
        text: str | None = self.module.edit(source, finding)
        return with_torch(text) if text is not None and text != source.text else None

    def statements(self, finding: Finding, report: SubjectReport) -> list[str] | None:
        """Lines of code about `model`."""
        lines: list[str] | None = self.module.statements(finding, report)
        return lines

    def settings(self, finding: Finding, request: ScanRequest) -> dict[str, Any] | None:
        """Fields of the request to replace."""
        changed: dict[str, Any] | None = self.module.settings(finding, request)
        return changed


@cache
def all_remedies() -> dict[str, Remedy]:
    """Every remedy by name."""
    import stabdiag.repair.remedies as package

    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_"))
    found = [Remedy(n.replace("_", "-"), importlib.import_module(f"{package.__name__}.{n}")) for n in names]
    return {remedy.name: remedy for remedy in found}


def named(name: str) -> list[Remedy]:
    """What a rule's suggestion stands for: the remedy of that name for modules, then the one for calls."""
    return [all_remedies()[n] for n in (name, f"{name}-function") if n in all_remedies()]


def remedies_for(finding: Finding) -> Iterator[Remedy]:
    """Those that may repair a finding: first the ones its rule names, in that order, then the others for its code."""
    remedies = all_remedies()
    first = [remedy for fix in finding.fixes for remedy in named(fix.name)]
    others = [remedy for remedy in remedies.values() if finding.code in remedy.repairs and remedy not in first]
    yield from (*first, *sorted(others, key=lambda remedy: (remedy.kind != "source", not remedy.keeps_function)))
