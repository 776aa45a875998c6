"""What is done to findings once, in one place: severity, path, suppression, baseline, order."""

from __future__ import annotations

from pathlib import Path

import pytest

from stabdiag.finding import Severity
from stabdiag.judging.report import Report, SubjectReport
from stabdiag.rule import all_rules
from stabdiag.scanning.settle import as_asked, settle
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Location, SubjectFacts

MODEL = "def forward(x):\n    return log(x)  # stabdiag: ignore[SD301] once\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SubjectReport:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODEL)
    return SubjectReport(SubjectFacts("net.py", "Net", 1, "", ""), rules_run=["SD001", "SD201", "SD301"])


def test_a_finding_has_the_severity_that_was_asked_for_and_a_path() -> None:
    request = ScanRequest("net.py", severity={"SD201": "info"})
    dead, wide = (all_rules()[code].finding(Severity.ERROR, "") for code in ("SD201", "SD301"))
    assert as_asked([dead, wide], request, "net.py") == [dead, wide]
    assert (dead.severity, wide.severity, dead.path) == ("info", "error", "net.py")


@pytest.mark.parametrize(
    ("severity", "rules", "found"),
    [
        ({}, ["SD001", "SD201", "SD301"], [("SD201", "error"), ("SD001", "warning")]),
        ({"SD001": "error"}, ["SD001", "SD201", "SD301"], [("SD001", "error"), ("SD201", "error")]),
        ({}, ["SD201", "SD301"], [("SD201", "error")]),
    ],
)
def test_what_the_gate_reports_is_treated_alike(
    run: SubjectReport, severity: dict[str, str], rules: list[str], found: list[tuple[str, str]]
) -> None:
    run.rules_run = rules
    run.findings = [all_rules()["SD201"].finding(Severity.ERROR, "", path="net.py", location=Location("net.py", 2))]
    settle(Report("0", [run]), [ScanRequest("net.py", severity=severity)])
    assert [(f.code, f.severity) for f in run.findings] == found


def test_findings_are_ordered_by_severity_then_by_line(run: SubjectReport) -> None:
    rule = all_rules()["SD301"]
    lines = [(Severity.WARNING, 1), (Severity.ERROR, 9), (Severity.ERROR, 2), (Severity.INFO, 4)]
    run.findings = [rule.finding(s, "", path="net.py", location=Location("net.py", line)) for s, line in lines]
    settle(Report("0", [run]), [ScanRequest("net.py")])
    assert [f.location.line for f in run.findings if f.location and f.code == "SD301"] == [2, 9, 1, 4]
