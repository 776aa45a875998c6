"""The examples of rules that only speak while a training is watched: executed, as those of all other rules are."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

import stabdiag
from stabdiag.live.watch import TrippedError
from stabdiag.rule import Rule, all_rules
from tests.rule_examples import example, expected_lines

LIVE_RULES = [rule for rule in all_rules().values() if rule.kind == "live"]


def trained(code: str, folder: Path) -> None:
    (folder / "training.py").write_text(code)
    space: dict[str, object] = {"__name__": "training", "__file__": str(folder / "training.py")}
    exec(compile(code, str(folder / "training.py"), "exec"), space)
    space["train"](partial(stabdiag.watch, directory="out"))  # type: ignore[operator]


@pytest.mark.parametrize("rule", LIVE_RULES, ids=lambda r: r.code)
def test_bad_trips_on_the_marked_line(rule: Rule, folder: Path) -> None:
    code = example(rule, "Bad")
    with pytest.raises(TrippedError) as caught:
        trained(code, folder)
    finding = caught.value.report.findings[0]
    assert finding.code == rule.code
    assert finding.location is not None
    assert {finding.location.line} == expected_lines(code, rule.code)
    assert finding.fixes


@pytest.mark.parametrize("rule", LIVE_RULES, ids=lambda r: r.code)
def test_good_does_not_trip(rule: Rule, folder: Path) -> None:
    trained(example(rule, "Good"), folder)
