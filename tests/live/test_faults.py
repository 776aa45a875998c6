"""A planted fault in a training: held before the weights are touched, the culprit named, the capsule saying the same."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.faults import FAULTS, marked

QUICK = ("sample with inf", "weight over float16", "rate x 100 at step 50", "nan in the optimizer")


def trip(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Run a faulty training, which checks itself that its weights stay finite; the first trip in its journal."""
    file = folder / "training.py"
    file.write_text(FAULTS[name].text)
    monkeypatch.setattr(sys, "argv", ["training.py", "out"])
    runpy.run_path("training.py", run_name="__main__")
    events = [json.loads(line) for line in Path("out/steps.jsonl").read_text().splitlines()]
    trips = [event for event in events if event["event"] == "trip"]
    assert trips, "nothing tripped"
    return trips[0]


def check(name: str, said: dict[str, object]) -> None:
    fault = FAULTS[name]
    assert said["culprit"] == fault.culprit, said["finding"]
    assert any(code in str(said["finding"]) for code in fault.codes), said["finding"]
    assert any(abs(line - said["line"]) <= 2 for line in marked(fault.text)), said  # type: ignore[operator]


@pytest.mark.parametrize("name", QUICK)
def test_the_culprit_is_named_and_its_line(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = trip(name, folder, monkeypatch)
    check(name, said)


@pytest.mark.long
@pytest.mark.parametrize("name", FAULTS)
def test_the_capsule_says_the_same_in_a_fresh_process(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = trip(name, folder, monkeypatch)
    check(name, said)
    command = [sys.executable, "-m", "stabdiag", "replay", str(said["capsule"]), "-f", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    finding = json.loads(done.stdout)["runs"][0]["findings"][0]
    assert f"[{finding['code']}]" in str(said["finding"])
    assert finding["evidence"]["culprit"]["kind"] == said["culprit"]
    assert finding["location"]["line"] == said["line"]
