"""Which findings are one, and which are consequences of another."""

from __future__ import annotations

from typing import Any

import pytest

from stabdiag.finding import Finding, Severity
from stabdiag.judging.triage import triage
from stabdiag.rule import all_rules
from stabdiag.trace import Location

CAUSE, SYMPTOM = next((code, rule.explains[0]) for code, rule in all_rules().items() if rule.explains)


def finding(code: str, *precisions: str, line: int = 3, severity: Severity = Severity.WARNING, **fields: Any) -> Finding:
    name = all_rules()[code].name
    return Finding(severity, code, code=code, name=name, precisions=[*precisions], location=Location("net.py", line), **fields)


def test_one_place_in_two_precisions_is_one_finding_as_bad_as_the_worst() -> None:
    found = triage([finding(CAUSE, "float16"), finding(CAUSE, "float32", severity=Severity.ERROR)])
    assert [(f.severity, f.precisions) for f in found] == [(Severity.ERROR, ["float32", "float16"])]


@pytest.mark.parametrize(
    ("cause", "symptom", "folded"),
    [
        ("float16", "float16", True),
        ("float16", "amp-float16", True),
        ("float16", "float32", False),
        ("float16", "bfloat16", False),
    ],
)
def test_a_cause_explains_a_symptom_on_its_line_in_its_formats_only(cause: str, symptom: str, folded: bool) -> None:
    found = triage([finding(CAUSE, cause), finding(SYMPTOM, symptom)])
    assert len(found) == (1 if folded else 2)


def test_another_line_is_another_finding() -> None:
    assert len(triage([finding(CAUSE, "float16"), finding(SYMPTOM, "float16", line=9)])) == 2


@pytest.mark.parametrize(("precision", "left"), [("float16", 1), ("float32", 2)])
def test_a_symptom_of_the_whole_model_is_explained_from_any_line_but_in_its_formats(precision: str, left: int) -> None:
    whole = finding(SYMPTOM, precision, line=9, evidence={"whole_model": True})
    assert len(triage([finding(CAUSE, "float16"), whole])) == left


def test_a_cause_is_as_bad_as_what_it_causes_and_names_it() -> None:
    (found,) = triage([finding(CAUSE, "float16"), finding(SYMPTOM, "float16", severity=Severity.ERROR)])
    assert found.severity is Severity.ERROR and found.evidence["consequences"] == [SYMPTOM]
