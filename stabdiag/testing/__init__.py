"""Stability as a test: `assert_stable(model, inputs)`, and the pytest plugin behind `pytest --stabdiag`.

Every pytest run where stabdiag is installed imports this package, so it imports the rest of stabdiag only when asked to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stabdiag.api import Diagnosis
    from stabdiag.judging.report import Report

__all__ = ["assert_stable"]


def assert_stable(
    model: Any,
    inputs: Any = None,
    *,
    loss: Callable[[Any], Any] | None = None,
    precision: str | Sequence[str] = ("float32", "bfloat16"),
    fail_on: str = "error",
    **options: Any,
) -> Diagnosis:
    """Fail with the report when a model is not numerically stable.

    Args:
        model, inputs, loss: as in `stabdiag.scan`.
        precision: in which it must be stable.
        fail_on: least severity of a finding that fails: "error", "warning", "info".
        options: as in `stabdiag.scan`, such as `select="SD2"`.

    Returns:
        The report of a stable model.

    Raises:
        AssertionError: a finding at or above `fail_on`, or a precision in which the model fails. Its text is the report.
    """
    from stabdiag.api import scan

    precisions = [precision] if isinstance(precision, str) else list(precision)
    report = scan(model, inputs, loss, precisions=precisions, **options)
    reasons = failures(report, fail_on)
    if reasons:
        listed = "".join(f"- {reason}\n" for reason in reasons)
        raise AssertionError(f"the model is not stable:\n{listed}\n{report}")
    return report


def failures(report: Report, fail_on: str = "error", precision: str | None = None) -> list[str]:
    """Why a report is not that of a stable model, one sentence each; of one precision only, if given."""
    from stabdiag.finding import Severity
    from stabdiag.reports.parts.place import place
    from stabdiag.reports.text import verdict_words

    floor = Severity(fail_on).rank
    found = []
    for run in report.runs:
        if run.error:
            found.append(f"not scanned: {run.error.message}")
        for verdict in run.precisions:
            if verdict.verdict == "fails" and precision in (None, verdict.name):
                said = f"{verdict.name} {verdict_words(verdict)}"
                found.append(f"{said}: {verdict.reason}" if verdict.reason else said)
        for finding in run.findings:
            concerned = precision is None or not finding.precisions or precision in finding.precisions
            if finding.status == "new" and finding.weight.rank >= floor and concerned:
                found.append(f"{place(run, finding)}: {finding.code} {finding.name}: {finding.message}")
    return found
