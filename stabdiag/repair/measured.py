"""A finding's own fact as one short text, in the same unit before and after a fix."""

from __future__ import annotations

from math import isfinite

from stabdiag.finding import Finding
from stabdiag.judging.report import PrecisionVerdict, SubjectReport
from stabdiag.rule import rule_of


def measured(finding: Finding, report: SubjectReport) -> str:
    """The fact that a fix of this finding should change, read from a report; "" when the report cannot say."""
    if report.error is not None:
        return "not scanned"
    same = next((f for f in report.findings if (f.code, f.module, f.op) == (finding.code, finding.module, finding.op)), None)
    rule = rule_of(finding)
    if rule.fact is not None:
        value = getattr(report, rule.fact.measure)
        return rule.fact.text.format(value) if value is not None else ""
    if rule.blocks and finding.precisions:
        verdicts = {v.name: v for v in report.precisions}
        return "; ".join(_verdict(verdicts[p]) for p in finding.precisions if p in verdicts) or "gone"
    return (same.label or same.message) if same is not None else "gone"


def _verdict(verdict: PrecisionVerdict) -> str:
    text = f"{verdict.name} {verdict.verdict}"
    if verdict.output_error is not None and isfinite(verdict.output_error):
        text += f", output error {verdict.output_error:.1e}"
    return text
