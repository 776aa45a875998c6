"""Every style of every unstable expression is reported on its line; no guarded one is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.evidence.expressions.zoo import STABLE, UNSTABLE, model_file
from tests.rule_examples import scanned

STYLES = {f"{kind}: {style}": text for kind, styles in UNSTABLE.items() for style, text in styles.items()}


def findings(code: str, folder: Path) -> dict[tuple[int, str], str]:
    report = scanned(code, folder, ignore=["SD1", "SD2", "SD3", "SD4", "SD5", "SD7", "SD8"])
    assert report.error is None
    return {(f.location.line, f.code): f.severity for f in report.findings if f.location and f.code.startswith("SD6")}


@pytest.mark.parametrize("style", STYLES)
def test_unstable_expressions_are_reported_on_their_line(style: str, tmp_path: Path) -> None:
    code = model_file(*STYLES[style])
    expected = {(n, c) for n, line in enumerate(code.splitlines(), 1) for c in re.findall(r"# expect: (SD\d+)", line)}
    found = findings(code, tmp_path)
    loud = {place for place, severity in found.items() if severity != "info"}
    assert expected <= loud
    assert all(any(abs(line - n) <= 1 for n, _ in expected) for line, _ in loud)  # the log behind a softmax by hand, at most


@pytest.mark.parametrize("style", STABLE)
def test_guarded_expressions_are_silent(style: str, tmp_path: Path) -> None:
    assert findings(model_file(*STABLE[style]), tmp_path) == {}


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_verdicts_do_not_depend_on_the_seed(seed: int, tmp_path: Path) -> None:
    for number, (style, text) in enumerate(STYLES.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        code = model_file(*text, seed=seed)
        expected = {(n, c) for n, line in enumerate(code.splitlines(), 1) for c in re.findall(r"# expect: (SD\d+)", line)}
        assert expected <= {place for place, severity in findings(code, folder).items() if severity != "info"}, style
    for number, (style, text) in enumerate(STABLE.items(), len(STYLES)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert findings(model_file(*text, seed=seed), folder) == {}, style
