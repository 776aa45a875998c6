"""Rules: discovery, documentation from the module docstring, selection by code, prefix or name.

A rule is one file in `stabdiag/rules/`, named `<code>_<name>.py`. It defines

    check(trace, *, threshold=…, …) -> Iterator[Finding]

whose keyword-only parameters are its thresholds, and optionally

    explains = ("SD301", …)     codes of symptoms that this rule's finding is the cause of
    MEASUREMENTS = (Measurement(…), ParameterMeasurement(…), …)     facts to be recorded at ops, at parameters

The module docstring is the documentation. No file here or there imports torch.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from stabdiag.finding import Finding, Severity
from stabdiag.trace import Op, Run, Trace


@dataclass(frozen=True)
class Measurement:
    """A fact that a rule wants recorded while the model runs.

    Attributes:
        name: under which it appears in `Op.facts`.
        ops: aten names (as `Op.name`) at which `measure` is called.
        measure: `measure(inputs, output, unit_dim, attributes) -> dict | None`. `inputs` are the op's tensor arguments,
            `output` its first result, as torch tensors in the dtype they have (use methods, do not import torch; upcast before
            reducing). Returns plain 0-d or 1-d tensors or numbers that add over calls and batches; None when it does not apply.
        phase: "forward" (loss included) or "backward".
        precisions: in which it is wanted; empty for all of them.
        where: asked before measuring, with the run so far and the op just recorded (its inputs and attributes are set), for ops
            that matter only in a certain graph; None for always.
        reads_inputs: whether `measure` looks at the inputs; False spares a copy of what an in-place op is about to overwrite.
    """

    name: str
    ops: tuple[str, ...]
    measure: Callable[[list[Any], Any, int | None, Mapping[str, Any]], Mapping[str, Any] | None]
    phase: str = "forward"
    precisions: tuple[str, ...] = ("float32",)
    where: Callable[[Run, Op], bool] | None = None
    reads_inputs: bool = True


@dataclass(frozen=True)
class ParameterMeasurement:
    """A fact that a rule wants recorded about each parameter and its gradient after a run.

    Attributes:
        name: under which it appears in `Parameter.facts`.
        measure: `measure(parameter, gradient) -> dict | None`, both detached tensors in the dtype they have, the gradient None
            where autograd gave none. Returns plain numbers or lists; None when it does not apply. Facts are those of the first
            batch.
        precisions: in which it is wanted; empty for all of them.
    """

    name: str
    measure: Callable[[Any, Any], Mapping[str, Any] | None]
    precisions: tuple[str, ...] = ("float32",)


@dataclass(frozen=True)
class Rule:
    """One rule, as read from its file."""

    code: str
    name: str
    module: ModuleType

    @property
    def documentation(self) -> str:
        """The module docstring."""
        return inspect.getdoc(self.module) or ""

    @property
    def summary(self) -> str:
        """First line of the documentation."""
        return self.documentation.splitlines()[0]

    def section(self, title: str) -> str:
        """The text below `## title` in the documentation, "" when there is none."""
        found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", self.documentation, re.M | re.S)
        return found.group(1).strip() if found else ""

    @property
    def thresholds(self) -> dict[str, Any]:
        """Keyword-only parameters of `check` and their defaults."""
        parameters = inspect.signature(self.module.check).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    @property
    def explains(self) -> tuple[str, ...]:
        """Codes of findings that are consequences of this rule's."""
        return tuple(getattr(self.module, "explains", ()))

    @property
    def measurements(self) -> tuple[Measurement | ParameterMeasurement, ...]:
        """What the tracer must record for this rule."""
        return tuple(getattr(self.module, "MEASUREMENTS", ()))

    @property
    def severities(self) -> list[str]:
        """Severities the rule can report, worst first, from its source; all of them where shared evidence decides."""
        source = inspect.getsource(self.module)
        named = [s.value for s in Severity if f"Severity.{s.name}" in source]
        return named or [s.value for s in Severity]

    def check(self, trace: Trace, thresholds: Mapping[str, Any] | None = None) -> Iterator[Finding]:
        """Judge a trace. Unknown thresholds raise TypeError."""
        for finding in self.module.check(trace, **(thresholds or {})):
            finding.code, finding.name = self.code, self.name
            yield finding


@cache
def all_rules() -> dict[str, Rule]:
    """Every rule by code, in order of code."""
    import stabdiag.rules as package

    rules = []
    for info in pkgutil.iter_modules(package.__path__):
        found = re.fullmatch(r"(sd\d{3})_(\w+)", info.name)
        if found:
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            rules.append(Rule(found[1].upper(), found[2].replace("_", "-"), module))
    return {rule.code: rule for rule in sorted(rules, key=lambda r: r.code)}


def matching(selector: str) -> list[Rule]:
    """Rules that a selector names: a code, a prefix of codes ("SD2"), a name, or "ALL". Empty when none."""
    wanted = selector.strip()
    if wanted.upper() == "ALL":
        return list(all_rules().values())
    return [r for r in all_rules().values() if r.code.startswith(wanted.upper()) or r.name == wanted.lower()]


def selected(select: Iterable[str], extend_select: Iterable[str], ignore: Iterable[str]) -> list[Rule]:
    """Rules that are on: `select` (empty for all) plus `extend_select` minus `ignore`; the most specific selector wins."""
    chosen: dict[str, tuple[int, bool]] = {code: (-1, not list(select)) for code in all_rules()}
    for selectors, on in ((select, True), (extend_select, True), (ignore, False)):
        for selector in selectors:
            specific = 0 if selector.upper() == "ALL" else len(selector) if selector.upper().startswith("SD") else 5
            for rule in matching(selector):
                if specific >= chosen[rule.code][0]:
                    chosen[rule.code] = (specific, on)
    return [rule for rule in all_rules().values() if chosen[rule.code][1]]


def measurements() -> list[Measurement | ParameterMeasurement]:
    """What all rules together want recorded, each measurement once."""
    wanted = {m.name: m for rule in all_rules().values() for m in rule.measurements}
    return list(wanted.values())
