"""One cause, one finding: what is merged, and what is folded into what. Findings by hand, no model."""

from __future__ import annotations

import pytest

from stabdiag.finding import Finding, Severity
from stabdiag.judging.triage import can_cause, triage
from stabdiag.rule import all_rules
from stabdiag.trace import Location

ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO


def found(code: str, severity: Severity = ERROR, line: int = 7, **more: object) -> Finding:
    options = {"precisions": ["float16"], "location": Location("net.py", line)} | more
    return all_rules()[code].finding(severity, code, **options)


def kept(*findings: Finding) -> list[str]:
    return [f.code for f in triage(list(findings))]


def test_one_rule_at_one_place_is_one_finding_with_all_precisions_and_the_worst_severity() -> None:
    mild, bad = found("SD302", WARNING, precisions=["bfloat16"]), found("SD302", ERROR)
    (merged,) = triage([mild, bad])
    assert (merged.severity, merged.precisions) == (ERROR, ["float16", "bfloat16"])
    assert (merged.severity_in("float16"), merged.severity_in("bfloat16"), merged.severity_in("float32")) == (
        ERROR,
        WARNING,
        None,
    )


@pytest.mark.parametrize("cause", ["SD601", "SD608", "SD305", "SD503", "SD403", "SD404"])
@pytest.mark.parametrize("symptom", ["SD301", "SD302", "SD303", "SD304", "SD501"])
def test_an_expression_or_a_softmax_is_why_the_ops_it_reaches_lose_range_or_digits(cause: str, symptom: str) -> None:
    assert kept(found(symptom), found(cause)) == [cause]


@pytest.mark.parametrize(
    ("cause", "symptom"),
    [
        (found("SD601"), found("SD302", line=9)),  # another line, which it does not reach
        (found("SD601"), found("SD302", precisions=["bfloat16"])),  # a format in which it is sound
        (found("SD605", INFO), found("SD608")),  # two expressions
        (found("SD606", INFO), found("SD302")),  # information explains no error
        (found("SD601"), found("SD502")),  # about the whole model
        (found("SD601"), found("SD801")),  # training has many causes
        (found("SD703"), found("SD301")),
        (found("SD101"), found("SD501")),
    ],
)
def test_what_does_not_follow_stays(cause: Finding, symptom: Finding) -> None:
    assert kept(symptom, cause) == [symptom.code, cause.code]


def test_an_op_that_the_cause_reaches_may_be_anywhere() -> None:
    cause, symptom = found("SD503", evidence={"reaches": [4, 5]}), found("SD501", line=30, evidence={"op_index": 5})
    assert kept(symptom, cause) == ["SD503"]
    assert cause.evidence["consequences"] == ["SD501"] and cause.consequences == [symptom]


def test_a_milder_cause_is_as_bad_as_its_consequence() -> None:
    cause = found("SD601", WARNING)
    assert kept(found("SD301", ERROR), cause) == ["SD601"] and cause.severity is ERROR


def test_of_a_chain_the_first_stays_with_all_that_follows() -> None:
    chain = [found("SD801"), found("SD302"), found("SD603")]
    assert kept(*chain) == ["SD603"]
    assert sorted(f.code for f in chain[2].consequences) == ["SD302", "SD801"]


def test_no_rule_explains_what_explains_it() -> None:
    rules = all_rules()
    behind = {
        code: {other for other in rules if other != code and can_cause(found(code), found(other), rules)} for code in rules
    }
    for _ in rules:  # what nothing is behind any more cannot be in a circle
        behind = {code: effects & set(behind) for code, effects in behind.items() if effects & set(behind)}
    assert behind == {}
