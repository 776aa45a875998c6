"""Rules: discovery, what each one declares about itself, documentation from the module docstring, selection.

A rule is one file in `stabdiag/rules/`, named `<code>_<name>.py`. It defines

    check(trace, *, threshold=…, …) -> Iterator[Finding]

whose keyword-only parameters are its thresholds, and declares what others need to know about its findings

    KIND = "range"              one of KINDS: what they are about, causes before their effects; fixes are tried in this order
    LEVEL = "op"                one of LEVELS: how much of the model one of them is about
    BLOCKS = True               whether a finding decides the verdict of the precisions it shows in (default: False)
    FACT = Fact(…)              the measure of the whole model that a fix must change (default: the finding's own label; the
                                verdicts where it blocks)
    RATCHET = Ratchet(…)        a measure that may not get worse than the baseline's, reported as a finding of this rule
    REMEDIES = ("layer-norm", …)    remedies to try besides those that its findings name as fixes
    explains = ("SD301", …)     codes of symptoms that this rule's finding is the cause of, besides those that follow from
                                kinds and levels (`stabdiag.judging.triage`)
    MEASUREMENTS = (Measurement(…), ParameterMeasurement(…), …)     facts to be recorded at ops, at parameters

Nothing outside the file lists its code: verdicts, the order of fixes, proofs, baselines, reports ask the `Rule`. The module
docstring is the documentation. No file here or there imports torch.
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

KINDS = ("expression", "attention", "start", "depth", "activation", "range", "rounding", "training", "live", "scan")
"""What a finding is about, in the order of cause and effect: an expression or a constant as written; the logits of a softmax;
data and initialisation; the course of gradients over depth; activations that die, saturate, drift or collapse; what a format
cannot hold; what it rounds; the steps of training; a training that runs; the scan itself."""

LEVELS = ("line", "op", "layer", "model")
"""How much of the model a finding is about."""


DOCUMENTATION = "https://stabdiag.github.io/stabdiag/"


@dataclass(frozen=True)
class Fact:
    """A measure of the whole model, as a short text with its unit.

    Attributes:
        measure: name of an attribute of the report of a model.
        text: with `{}` where the number stands.
    """

    measure: str
    text: str


@dataclass(frozen=True)
class Ratchet:
    """A measure that may not get worse than it was when the baseline was written, even where no threshold is crossed.

    Attributes:
        measure: a number that baselines hold: "headroom_bits", "output_error", "gradient_error" of a precision, or
            "gradient_ratio", gradient at the first layers over that at the last.
        worse: `worse(before, now)`, whether that is a loss.
        message: with `{before}`, `{now}` and `{precision}`.
        column, extreme: where it got lost: the row whose column (of the op table for measures of a precision, of the layer
            table for others) is smallest (`min`) or largest (`max`).
        phase: of the finding.
    """

    measure: str
    worse: Callable[[float, float], bool]
    message: str
    column: str
    extreme: Callable[..., Any] = min
    phase: str = "forward"


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
    def page(self) -> str:
        """Address of its page in the documentation."""
        return f"{DOCUMENTATION}rules/{self.code}/"

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
    def kind(self) -> str:
        """One of KINDS."""
        return self._one_of("KIND", KINDS)

    @property
    def level(self) -> str:
        """One of LEVELS."""
        return self._one_of("LEVEL", LEVELS)

    def _one_of(self, name: str, values: tuple[str, ...]) -> str:
        value = getattr(self.module, name, None)
        if value not in values:
            raise ValueError(f"{self.module.__name__} declares {name} = {value!r}; write one of {', '.join(values)}")
        return str(value)

    @property
    def blocks(self) -> bool:
        """Whether its findings stand in the way of the precisions they show in."""
        return bool(getattr(self.module, "BLOCKS", False))

    @property
    def fact(self) -> Fact | None:
        """The measure of the whole model that its findings are about; None where they have a fact of their own."""
        return getattr(self.module, "FACT", None)

    @property
    def ratchet(self) -> Ratchet | None:
        """What may not get worse than the baseline."""
        return getattr(self.module, "RATCHET", None)

    @property
    def remedies(self) -> tuple[str, ...]:
        """Names of remedies that may repair its findings, besides those they name."""
        return tuple(getattr(self.module, "REMEDIES", ()))

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
            yield self._own(finding)

    def finding(self, severity: Severity, message: str, **more: Any) -> Finding:
        """A finding of this rule that is made elsewhere than in its `check`. `more`: the other fields of Finding."""
        return self._own(Finding(severity, message, **more))

    def _own(self, finding: Finding) -> Finding:
        finding.code, finding.name = self.code, self.name
        if finding.blocks is None:
            finding.blocks = list(finding.precisions) if self.blocks else []
        return finding


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


def rule_in(module: str) -> Rule:
    """The rule whose file a module is, by the module's name."""
    return next(rule for rule in all_rules().values() if rule.module.__name__ == module)


def rule_of(finding: Finding) -> Rule:
    """The rule that made a finding. Raises KeyError for one of another version."""
    return all_rules()[finding.code]


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
