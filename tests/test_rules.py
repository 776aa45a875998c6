"""Every rule's documentation is executed: Bad is reported on the marked line, Good is silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from stabdiag.rule import Rule, all_rules, matching, selected
from tests.rule_examples import example, expected_lines, scanned

# Rules about the scan itself have no model to show, those about a training that runs show one (tests/live/test_rules.py).
MODEL_RULES = [rule for rule in all_rules().values() if rule.kind not in ("scan", "live")]
SECTIONS = ("What it does", "Why it matters", "Bad", "Good", "What it does not detect", "Thresholds", "References")


@pytest.mark.parametrize("rule", MODEL_RULES, ids=lambda r: r.code)
def test_bad_is_reported_on_the_marked_line(rule: Rule, tmp_path: Path) -> None:
    code = example(rule, "Bad")
    expected = expected_lines(code, rule.code)
    assert expected, "mark the line with # expect"
    report = scanned(code, tmp_path)
    found = [f for f in report.findings if rule.code in (f.code, *f.evidence.get("consequences", ()))]  # told, or folded
    assert found, f"not reported; the scan said {[f'{f.code} {f.message}' for f in report.findings]}"
    told = [f for f in found if f.code == rule.code]  # one that was folded stands at its cause's line
    assert not told or {f.location.line for f in told if f.location} == expected
    assert all(f.fixes for f in found), "every finding names at least one concrete fix"


@pytest.mark.parametrize("rule", MODEL_RULES, ids=lambda r: r.code)
def test_good_is_silent(rule: Rule, tmp_path: Path) -> None:
    report = scanned(example(rule, "Good"), tmp_path)
    assert report.error is None
    assert [f.message for f in report.findings if f.code == rule.code] == []
    assert [f"{f.code} {f.message}" for f in report.findings if f.severity == "error"] == []


@pytest.mark.parametrize("rule", all_rules().values(), ids=lambda r: r.code)
def test_documentation_is_complete(rule: Rule) -> None:
    wanted = SECTIONS if not rule.code.startswith("SD0") else SECTIONS[:2]
    assert [s for s in wanted if not rule.section(s)] == []
    for name in rule.thresholds:
        assert f"`{name}`" in rule.section("Thresholds"), f"threshold {name} is not documented"


def test_selection_by_code_prefix_and_name() -> None:
    assert [r.code for r in matching("dead-relu")] == ["SD201"]
    assert {r.code[:3] for r in matching("SD2")} == {"SD2"}
    on = {r.code for r in selected(["SD2"], [], ["SD201"])}
    assert "SD201" not in on
    assert on < {r.code for r in matching("SD2")}
