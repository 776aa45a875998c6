"""Whole scans in a worker process: what the user's code may do to us, and what is reported then."""

from __future__ import annotations

from pathlib import Path

import pytest

from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import SubjectReport
from stabdiag.scanning.pipeline import scan
from stabdiag.scanning.settle import weigh
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Location, SubjectFacts

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        {forward}
        return self.fc(x)

def build_model():
    torch.manual_seed(0)
    return Net()

def example_inputs():
    return (torch.randn(16, 8, generator=torch.Generator().manual_seed(1)),)

{rest}
"""


def scanned(tmp_path: Path, forward: str = "pass", rest: str = "", **options: object) -> SubjectReport:
    path = tmp_path / "model.py"
    path.write_text(MODEL.format(forward=forward, rest=rest))
    return scan(ScanRequest(target=str(path), **options))  # type: ignore[arg-type]


def test_a_healthy_model_is_scanned_in_all_default_precisions(tmp_path: Path) -> None:
    report = scanned(tmp_path)
    assert report.error is None
    assert [(p.name, p.verdict) for p in report.precisions] == [("float32", "safe"), ("float16", "safe"), ("bfloat16", "safe")]
    assert report.findings == []
    assert report.layers and report.op_rows


def test_prints_of_the_model_do_not_reach_the_protocol(tmp_path: Path) -> None:
    report = scanned(tmp_path, forward="""print('{"done": true}'); import os; os.write(1, b'{"error": {}}\\n')""")
    assert report.error is None
    assert report.precisions[0].verdict == "safe"


@pytest.mark.parametrize(
    ("rest", "kind", "says"),
    [
        ("import sys; sys.exit(3)", "load", "sys.exit"),
        ("import os; os._exit(7)", "crash", "exit status 7"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crash", "SIGSEGV"),
        ("raise ValueError('two\\nlines')", "load", "ValueError: two"),
        ("def f(:", "load", "syntax"),
    ],
)
def test_code_that_ends_the_process_is_one_sentence(tmp_path: Path, rest: str, kind: str, says: str) -> None:
    report = scanned(tmp_path, rest=rest)
    assert report.error is not None and report.error.kind == kind
    assert says.lower() in report.error.message.lower()
    assert "\n" not in report.error.message


def test_a_forward_that_never_returns_is_ended_in_time(tmp_path: Path) -> None:
    report = scanned(tmp_path, rest="import time\nwhile True: time.sleep(1)", timeout=6.0)
    assert report.error is not None and report.error.kind == "timeout"
    assert "--timeout" in report.error.message


def test_a_crash_in_a_late_precision_keeps_what_was_known(tmp_path: Path) -> None:
    forward = "import os; x.dtype == torch.bfloat16 and os._exit(9)"
    report = scanned(tmp_path, forward=forward)
    assert report.error is not None and "exit status 9" in report.error.message
    verdicts = {p.name: p.verdict for p in report.precisions}
    assert verdicts["float32"] == "safe" and verdicts["bfloat16"] == "not-run"


def test_a_dtype_mismatch_in_someones_forward_is_not_run_and_no_finding(tmp_path: Path) -> None:
    report = scanned(tmp_path, forward="x = x + (torch.zeros(8, 8, dtype=torch.float32) @ x.T).T")
    verdicts = {p.name: p for p in report.precisions}
    assert verdicts["float16"].verdict == "not-run"
    assert verdicts["float16"].reason
    assert not [f for f in report.findings if f.severity == "error"]


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    report = scan(ScanRequest(target=str(tmp_path / "absent.py")))
    assert report.error is not None and "absent.py" in report.error.message


def test_two_scans_judge_alike(tmp_path: Path) -> None:
    one, other = (scanned(tmp_path, forward="x = nn.functional.dropout(x, 0.5, self.training)") for _ in range(2))
    assert one.op_rows == other.op_rows
    assert one.precisions == other.precisions


@pytest.mark.parametrize(
    ("precisions", "library", "request_", "declared", "stored", "severity", "weight"),
    [
        (["float16"], "site.py:3", {}, {}, [], "warning", "warning"),
        (["float16"], "", {}, {}, [], "error", "warning"),
        (["float16"], "", {}, {}, ["float16"], "error", "error"),
        (["float32", "float16"], "site.py:3", {}, {}, [], "error", "error"),
        (["float16"], "site.py:3", {"precisions": ["float32", "float16"]}, {}, [], "error", "error"),
        (["float16"], "", {"precisions": ["float32", "bfloat16"]}, {}, [], "error", "warning"),
        (["float16"], "site.py:3", {"severity": {"SD302": "error"}}, {}, [], "error", "error"),
        (["float16"], "site.py:3", {}, {"precisions": ["float32", "float16"]}, [], "error", "error"),
        ([], "", {}, {}, [], "error", "error"),
    ],
)
def test_what_nobody_asked_for_weighs_less(
    precisions: list[str],
    library: str,
    request_: dict[str, object],
    declared: dict[str, object],
    stored: list[str],
    severity: str,
    weight: str,
) -> None:
    at = Location("model.py", 3, library=library)
    finding = Finding(Severity.ERROR, "", code="SD302", name="overflow", precisions=precisions, location=at)
    facts = SubjectFacts("model.py", "Net", 0, "", "", training=declared, stored=stored)
    weigh([finding], ScanRequest("model.py", **request_), facts)  # type: ignore[arg-type]
    assert (finding.severity, finding.weight) == (severity, weight)
