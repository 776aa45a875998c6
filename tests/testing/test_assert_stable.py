import pytest
import torch
from torch import nn

from stabdiag.api import Diagnosis
from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import PrecisionVerdict, Report
from stabdiag.testing import assert_stable, failures
from tests.reports.sample_report import broken, healthy, sick


def test_a_stable_model_passes_and_gives_its_report():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    report = assert_stable(model, torch.randn(32, 16), precision="float32")
    assert [p.name for p in report.runs[0].precisions] == ["float32"]


def test_an_unstable_one_fails_with_the_report(monkeypatch):
    import stabdiag.api

    monkeypatch.setattr(stabdiag.api, "scan", lambda *args, **options: Diagnosis("0", [sick()]))
    with pytest.raises(AssertionError) as caught:
        assert_stable(nn.Linear(2, 2), torch.ones(1, 2))
    text = str(caught.value)
    assert "- amp-float16 fails at net.py:52" in text
    assert "- models/net.py:41:16: SD201 dead-relu" in text and "error[SD201]" in text
    assert "- models/net.py:52:17: SD601" not in text


def test_what_fails():
    report = Report("0", [sick()])
    assert len(failures(report)) == 2
    assert len(failures(report, "warning")) == 3
    assert len(failures(report, precision="float32")) == 1
    assert failures(report, precision="bfloat16") == []
    assert len(failures(report, "info", precision="bfloat16")) == 1, "a finding without a precision concerns all"
    assert failures(Report("0", [healthy()])) == []
    assert failures(Report("0", [broken()]))[0].startswith("not scanned")


def test_a_verdict_without_a_finding_fails_too():
    run = healthy()
    run.precisions = [PrecisionVerdict("float16", "fails", reason="the loss is not finite")]
    assert failures(Report("0", [run])) == ["float16 fails: the loss is not finite"]
    run.precisions = []
    run.findings = [Finding(Severity.ERROR, "m", code="SD101", name="x", status="baselined")]
    assert failures(Report("0", [run])) == []
