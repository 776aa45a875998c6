"""Sample models: each sick one is reported on exactly its marked lines, healthy ones are silent."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stabdiag.scanning.pipeline import scan_here
from stabdiag.settings.request import ScanRequest

SAMPLES = Path(__file__).parents[1] / "sample_models"
SICK = sorted((SAMPLES / "sick").glob("*.py"))
HEALTHY = sorted((SAMPLES / "healthy").glob("*.py"))


def expected(path: Path) -> set[tuple[str, int]]:
    """(code, line) of every `# expect: SD201, SD103` comment; `# expect-anywhere` stands for a finding without a line (0)."""
    found = set()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if marked := re.search(r"# expect(-anywhere)?: ([SD\d, ]+)", line):
            found |= {(code.strip(), 0 if marked[1] else number) for code in marked[2].split(",")}
    return found


@pytest.mark.parametrize("path", SICK, ids=lambda p: p.stem)
def test_a_sick_model_is_reported_on_its_marked_lines_and_nowhere_else(path: Path) -> None:
    report = scan_here(ScanRequest(target=str(path)))
    assert report.error is None
    wanted = expected(path)
    assert wanted, "mark the line that must be reported with # expect"
    loud = [f for f in report.findings if f.severity != "info"]
    assert {(f.code, f.location.line if f.location else 0) for f in loud} == wanted
    assert any(f.severity == "error" for f in loud)


@pytest.mark.parametrize("path", HEALTHY, ids=lambda p: p.stem)
def test_a_healthy_model_is_silent(path: Path) -> None:
    report = scan_here(ScanRequest(target=str(path)))
    assert report.error is None
    assert [f"{f.code} {f.message}" for f in report.findings if f.severity != "info"] == []


def test_there_are_enough_of_both() -> None:
    assert len(HEALTHY) >= 6 and len(SICK) >= 14
