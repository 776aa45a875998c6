"""The sample models repaired: what `stabdiag fix -o` writes scans clean, and healthy models get no proposal."""

from __future__ import annotations

from pathlib import Path

import pytest

from stabdiag.commands import application as cli
from stabdiag.finding import Severity
from stabdiag.repair.search import prove
from stabdiag.scanning.pipeline import scan, scan_here
from stabdiag.settings.request import ScanRequest
from tests.test_sample_models import HEALTHY, SICK


@pytest.mark.long
@pytest.mark.parametrize("path", SICK, ids=lambda p: p.stem)
def test_a_sick_model_is_repaired(path: Path, tmp_path: Path) -> None:
    here = tmp_path / path.name
    here.write_bytes(path.read_bytes())
    outcome = prove(ScanRequest(str(here)), scan_here)
    assert outcome.accepted and not outcome.state.settings and not outcome.state.after_build
    here.write_text(outcome.state.texts[str(here.resolve())])
    left = [f for f in scan(ScanRequest(str(here))).findings if f.severity is Severity.ERROR]
    assert not left, [(f.code, f.message) for f in left] + [(a.fix.name, a.fix.note) for a in outcome.attempts]


@pytest.mark.long
@pytest.mark.parametrize("path", HEALTHY, ids=lambda p: p.stem)
def test_a_healthy_model_gets_no_proposal(path: Path) -> None:
    assert prove(ScanRequest(str(path)), scan_here).attempts == []


@pytest.mark.long
def test_the_written_file_scans_clean_in_a_process_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, fixed = next(p for p in SICK if p.stem == "log_of_softmax"), tmp_path / "fixed.py"
    assert cli.run(["fix", str(path), "-o", str(fixed), "-p", "float32"]) == 0
    assert "F.log_softmax(" in fixed.read_text()
    assert cli.run(["scan", str(fixed), "-p", "float32"]) == 0
    assert "log_softmax" in capsys.readouterr().out
