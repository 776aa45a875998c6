"""A remedy's view of a place in a file, made by hand."""

from __future__ import annotations

from stabdiag.finding import Finding, Fix, Severity
from stabdiag.judging.operands import Operand
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.source import Source
from stabdiag.repair.remedy import Case, Edit, Remedy, Rewrite
from stabdiag.rule import all_rules
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Location, SubjectFacts

LIMITED = ("log", "log2", "log10", "log1p", "div", "reciprocal", "sqrt", "rsqrt", "pow", "linalg_vector_norm", "exp", "expm1")


def report(operands: list[Operand] | None = None) -> SubjectReport:
    return SubjectReport(SubjectFacts("model.py", "Net", 0, "", ""), operands=operands or [])


def code_for(remedy: Remedy) -> str:
    """A rule that suggests the remedy."""
    rules = [rule for rule in all_rules().values() if remedy.name in rule.remedies]
    rules.sort(key=lambda rule: rule.kind != "expression")
    return rules[0].code if rules else "SD301"


def case(
    remedy: Remedy,
    at: Location | None,
    *,
    precisions: tuple[str, ...] = ("float32",),
    low: float = -1.0,
    high: float = 2.0,
    smallest: float = 10.0,
) -> Case:
    """The remedy's case at a location where every op with a limited domain has operands of one range."""
    finding = Finding(
        Severity.ERROR,
        "",
        code=code_for(remedy),
        location=at,
        precisions=list(precisions),
        fixes=[Fix(remedy.name, "")],
    )
    there = [
        Operand(at.path, at.line, None, op, position, 0.0 if op in ("div", "reciprocal") else low, high, smallest)
        for op in LIMITED
        for position in (0, 1)
        if at is not None
    ]
    return Case(finding, report(there), ScanRequest("model.py"))


def edited(remedy: Remedy, source: Source, case: Case) -> str | None:
    assert isinstance(remedy.change, Edit | Rewrite)
    return remedy.change.text(source, case)
