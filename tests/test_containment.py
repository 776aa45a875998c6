"""A rule that fails costs its own verdict and is told; the others are kept."""

from __future__ import annotations

import pytest

from stabdiag.rule import all_rules
from stabdiag.scanning.pipeline import report_on
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Run, SubjectFacts, Trace, containment


def test_a_failing_rule_is_told_and_the_rest_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(trace: Trace, **thresholds: object) -> list[object]:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(all_rules()["SD201"].module, "check", fail)
    trace = Trace(SubjectFacts("model.py", "Net", 1, "x", "loss"), [Run("float32")])
    with pytest.raises(ZeroDivisionError):
        report_on(trace, ScanRequest("model.py"))
    monkeypatch.setattr(containment, "STRICT", False)
    report = report_on(trace, ScanRequest("model.py"))
    told = [f for f in report.findings if f.code == "SD003"]
    assert len(told) == 1 and "SD201 failed (ZeroDivisionError: on purpose)" in told[0].message
