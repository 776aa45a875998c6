"""One cause, one finding: the same defect in several precisions is merged, and consequences are folded into their cause."""

from __future__ import annotations

from collections.abc import Mapping

from stabdiag.finding import Finding, Severity
from stabdiag.rule import Rule, all_rules
from stabdiag.trace.formats import PRECISIONS

SOURCES, EFFECTS = ("expression", "attention"), ("range", "rounding")


def triage(findings: list[Finding]) -> list[Finding]:
    """Merge and fold. What was folded is told in the cause's evidence, never dropped silently."""
    return _fold(_merge(findings))


def _merge(findings: list[Finding]) -> list[Finding]:
    """Findings of one rule at one place become one, with all their precisions and the worst severity."""
    merged: dict[tuple[object, ...], Finding] = {}
    for finding in findings:
        at = finding.location
        key = (
            finding.code,
            finding.module,
            finding.phase,
            at and (at.path, at.line, at.column, at.library),
            finding.op,
        )
        first = merged.setdefault(key, finding)
        if first is finding:
            continue
        if finding.severity.rank > first.severity.rank:
            merged[key], first, finding = finding, finding, first
        first.precisions.extend(finding.precisions)
        if finding.severity is first.severity:
            first.blocks = [*(first.blocks or ()), *(finding.blocks or ())]
        else:  # told as bad as it is anywhere, and no worse for a precision than there
            first.consequences += [finding, *finding.consequences]
    for finding in merged.values():
        finding.precisions = sorted(set(finding.precisions), key=_precision_order)
    return list(merged.values())


def _fold(findings: list[Finding]) -> list[Finding]:
    """Drop findings that another one explains, keeping their codes as evidence of the last cause."""
    rules = all_rules()
    causes: dict[int, Finding] = {}
    for finding in findings:
        for other in findings:
            if other is not finding and can_cause(other, finding, rules) and _same_place(other, finding):
                causes[id(finding)] = other
                break
    kept = [finding for finding in findings if id(finding) not in causes]
    for finding in findings:
        if id(finding) not in causes:
            continue
        cause = causes[id(finding)]
        while id(cause) in causes:  # ends: no rule explains what explains it
            cause = causes[id(cause)]
        cause.consequences.append(finding)
        if rules[causes[id(finding)].code].blocks:  # its direct cause knows better: a loss scale may bring all of it back
            finding.blocks = [p for p in finding.blocks or () if p not in causes[id(finding)].precisions]
        cause.evidence.setdefault("consequences", []).append(finding.code)
        if finding.severity.rank > cause.severity.rank:
            cause.severity = finding.severity
    return kept


def can_cause(cause: Finding, symptom: Finding, rules: Mapping[str, Rule]) -> bool:
    """Whether a finding of the one rule can be why there is one of the other.

    An expression, or the logits of a softmax, is why the ops it reaches overflow, underflow or lose digits, unless it is mere
    information; whatever else causes what is in `Rule.explains`.
    """
    by, of = rules[cause.code], rules[symptom.code]
    if of.code in by.explains:
        return True
    serious = Severity.INFO not in (cause.severity, symptom.severity) or cause.severity is symptom.severity
    return serious and by.kind in SOURCES and of.kind in EFFECTS and of.level == "op"


def _same_place(cause: Finding, symptom: Finding) -> bool:
    """Whether a symptom can come from a cause: the same line, or an op that the cause names as its consequence."""
    if symptom.evidence.get("whole_model"):  # the loss, the steps, the signal: one cause anywhere is enough
        return _formats(symptom) <= _formats(cause)
    reached = cause.evidence.get("reaches", ())
    if cause.location is not None and symptom.location is not None:
        same_line = (cause.location.path, cause.location.line) == (symptom.location.path, symptom.location.line)
        if same_line or symptom.evidence.get("op_index") in reached:
            return _formats(symptom) <= _formats(cause) or not cause.precisions
    if cause.location is None and symptom.location is None and cause.phase == symptom.phase == "step":
        return True  # both are about an optimizer that no line of the file constructs
    return symptom.evidence.get("op_index", -1) in reached


def _formats(finding: Finding) -> set[str]:
    """The formats it shows in: a cause that a cast finds is there under autocast, too."""
    return {precision.removeprefix("amp-") for precision in finding.precisions}


def _precision_order(name: str) -> int:
    return PRECISIONS.index(name) if name in PRECISIONS else len(PRECISIONS)
