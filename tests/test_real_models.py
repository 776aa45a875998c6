"""Healthy architectures are quiet: no error, and a verdict in every precision."""

from __future__ import annotations

from pathlib import Path

import pytest

from stabdiag.scanning.pipeline import scan_here
from stabdiag.settings.request import ScanRequest
from tests.real_models import REAL_MODELS, source_of

CORE = ("GPT2", "Bert", "T5", "Llama", "Mamba", "ViT", "ResNet", "Whisper")


@pytest.mark.parametrize("name", [n if n in CORE else pytest.param(n, marks=pytest.mark.long) for n in REAL_MODELS])
def test_no_error_on_a_healthy_architecture(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(source_of(name))
    report = scan_here(ScanRequest(target=str(path)))
    assert report.error is None
    assert [f"{f.code} {f.message}" for f in report.findings if f.severity == "error"] == []
    assert {p.name: p.verdict for p in report.precisions if not p.verdict.startswith("safe")} == {}
    assert len(report.layers) >= 3
