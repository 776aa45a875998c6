"""What the remedies that replace activation modules share."""

from __future__ import annotations

from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.statements import replace_each
from stabdiag.rule import rule_of

RECTIFIERS = ("ReLU", "ReLU6")
BOUNDED = ("Sigmoid", "Tanh", "Hardsigmoid", "Hardtanh", "Softsign")


def replaced(finding: Finding, report: SubjectReport, new: str) -> list[str] | None:
    """Statements that put a new activation in the place of every hidden one of the kind that the finding is about."""
    rectifier = finding.op.startswith("relu") or any(m.name == "relu" for m in rule_of(finding).measurements)
    kinds = RECTIFIERS if rectifier else BOUNDED
    last = report.weights[-1].module if report.weights else ""
    order = list(report.modules)
    hidden = order[: order.index(last)] if last in order else order
    found: list[str] = []
    for kind in kinds:
        paths = [path for path in hidden if report.modules[path] == kind and path]
        found += replace_each(paths, report.modules, lambda layer: new) if paths else []
    return found or None
