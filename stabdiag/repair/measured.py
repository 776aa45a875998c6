"""A finding's own fact as one short text, in the same unit before and after a fix."""

from __future__ import annotations

from math import isfinite

from stabdiag.finding import Finding
from stabdiag.judging.report import PrecisionVerdict, SubjectReport


def measured(finding: Finding, report: SubjectReport) -> str:
    """The fact that a fix of this finding should change, read from a report; "" when the report cannot say."""
    if report.error is not None:
        return "not scanned"
    same = next((f for f in report.findings if (f.code, f.module, f.op) == (finding.code, finding.module, finding.op)), None)
    if finding.code in ("SD101", "SD102", "SD103", "SD702"):
        return _gradient_ratio(report)
    if finding.code.startswith(("SD3", "SD501", "SD502", "SD503", "SD505", "SD104", "SD105")) and finding.precisions:
        verdicts = {v.name: v for v in report.precisions}
        return "; ".join(_verdict(verdicts[p]) for p in finding.precisions if p in verdicts) or "gone"
    return (same.label or same.message) if same is not None else "gone"


def _gradient_ratio(report: SubjectReport) -> str:
    norms = [layer.gradient_rms for layer in report.layers if layer.gradient_rms is not None]
    if len(norms) < 2 or not norms[-1]:
        return ""
    return f"gradient at the first layer {norms[0] / norms[-1]:.1e} of the last"


def _verdict(verdict: PrecisionVerdict) -> str:
    text = f"{verdict.name} {verdict.verdict}"
    if verdict.output_error is not None and isfinite(verdict.output_error):
        text += f", output error {verdict.output_error:.1e}"
    return text
