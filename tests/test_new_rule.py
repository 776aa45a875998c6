"""What a new rule costs: one file. Everything that knows about rules knows the one that this test writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import stabdiag.rules
from stabdiag.commands.rule import table
from stabdiag.finding import Severity
from stabdiag.gate.ratchet import losses
from stabdiag.judging.report import Layer, Report
from stabdiag.judging.triage import triage
from stabdiag.judging.verdict import verdicts
from stabdiag.repair.attempt import State
from stabdiag.repair.measured import measured
from stabdiag.repair.search import prove
from stabdiag.reports import sarif
from stabdiag.rule import Rule, all_rules
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Run, SubjectFacts, Trace
from tests.reports.sample_report import healthy

FILE = '''"""Outputs that are off by more than a hundredth.

## What it does
Looks at the outputs.
"""

from stabdiag.finding import Finding, Severity
from stabdiag.rule import Fact, Ratchet
from stabdiag.trace import Location

KIND = "expression"
LEVEL = "line"
BLOCKS = True
FACT = Fact("gradient_ratio", "a ratio of {:.1f}")
RATCHET = Ratchet("output_error", lambda b, n: n > 2 * b, "from {before:g} to {now:g} in {precision}", "error", max)
explains = ("SD302",)


def check(trace, *, limit=0.01):
    for run in trace.runs:
        if run.output_error > limit:
            yield Finding(Severity.ERROR, "off", precisions=[run.precision], location=Location("net.py", 7))
'''


@pytest.fixture
def rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rule]:
    (tmp_path / "sd999_wrong_output.py").write_text(FILE)
    monkeypatch.setattr(stabdiag.rules, "__path__", [*stabdiag.rules.__path__, str(tmp_path)])
    all_rules.cache_clear()
    yield all_rules()["SD999"]
    all_rules.cache_clear()
    sys.modules.pop("stabdiag.rules.sd999_wrong_output")


@pytest.fixture
def trace() -> Trace:
    run = Run("float16", loss=1.0, output_error=0.02)
    return Trace(SubjectFacts("net.py", "Net", 0, "", ""), runs=[replace(run, precision="float32", output_error=0.0), run])


def test_its_findings_carry_its_code_and_name(rule: Rule, trace: Trace) -> None:
    (finding,) = rule.check(trace)
    assert (finding.code, finding.name, finding.blocks) == ("SD999", "wrong-output", ["float16"])
    assert [*rule.check(trace, {"limit": 0.1})] == []


def test_the_verdict_knows_that_it_blocks(rule: Rule, trace: Trace) -> None:
    sound, failing = verdicts(trace, [*rule.check(trace)], ["float32", "float16"])
    assert (sound.verdict, sound.where) == ("safe", "")
    assert (failing.verdict, failing.where) == ("fails", "net.py:7")
    assert failing.reason.startswith("SD999 wrong-output")


@pytest.mark.parametrize(("blocks", "verdict"), [(False, "at-risk"), (True, "fails")])
def test_a_cause_blocks_through_what_is_folded_into_it_unless_it_speaks_for_itself(
    rule: Rule, trace: Trace, monkeypatch: pytest.MonkeyPatch, blocks: bool, verdict: str
) -> None:
    monkeypatch.setattr(rule.module, "BLOCKS", blocks)
    (cause,) = rule.check(trace)
    symptom = all_rules()["SD302"].finding(Severity.WARNING, "", precisions=["float16"], location=cause.location)
    kept = triage([cause, symptom])
    assert kept == [cause] and cause.consequences == [symptom]
    assert verdicts(trace, kept, ["float16"])[0].verdict == verdict
    assert bool(symptom.blocks) is not blocks


def test_it_is_repaired_in_its_turn(rule: Rule, trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine,) = rule.check(trace)
    effect = all_rules()["SD801"].finding(Severity.ERROR, "diverges", phase="step")
    asked = []
    monkeypatch.setattr("stabdiag.repair.search.candidates", lambda finding, *_: asked.append(finding.code) or iter(()))
    before = replace(healthy(), findings=[effect, mine])
    assert prove(ScanRequest("net.py"), lambda request: before, before=before).state == State()
    assert asked == ["SD999", "SD801"] * 2  # edits first, then settings


def test_a_proof_shows_its_fact(rule: Rule, trace: Trace) -> None:
    (finding,) = rule.check(trace)
    layers = [Layer(f"l{i}", "relu", "net.py", i + 1, True, 1.0, gradient) for i, gradient in enumerate((0.5, 1.0))]
    assert measured(finding, replace(healthy(), layers=layers)) == "a ratio of 0.5"


def test_the_ratchet_holds_what_it_declares(rule: Rule) -> None:
    run = healthy()
    run.rules_run, run.precisions[0].output_error = ["SD999"], 0.5
    before = {run.precisions[0].name: {"output_error": 0.1}}
    assert [(f.code, f.message, f.acceptable) for f in losses(run, before, "base.json")] == [
        ("SD999", f"from 0.1 to 0.5 in {run.precisions[0].name}", False)
    ]
    run.precisions[0].output_error = 0.2
    assert [*losses(run, before, "base.json")] == []


def test_the_table_of_rules_and_sarif_list_it(rule: Rule, trace: Trace) -> None:
    assert "| SD999 | wrong-output | error | Outputs that are off by more than a hundredth. |" in table([rule])
    report = Report("0", [replace(healthy(), findings=[*rule.check(trace)])])
    driver = json.loads(sarif.render(report))["runs"][0]["tool"]["driver"]
    assert "SD999" in [described["id"] for described in driver["rules"]]


@pytest.mark.parametrize(("declared", "sentence"), [('KIND = "expression"', "KIND"), ('LEVEL = "line"', "LEVEL")])
def test_what_it_must_declare_is_asked_for(rule: Rule, monkeypatch: pytest.MonkeyPatch, declared: str, sentence: str) -> None:
    monkeypatch.setattr(rule.module, sentence, "other")
    with pytest.raises(ValueError, match=rf"sd999_wrong_output declares {sentence} = 'other'; write one of"):
        _ = rule.kind, rule.level


@pytest.mark.parametrize("rule_", all_rules().values(), ids=lambda r: r.code)
def test_every_rule_declares_what_it_is_about(rule_: Rule) -> None:
    assert rule_.kind and rule_.level
    assert set(rule_.explains) <= set(all_rules())
