"""What proven means, clause by clause, on reports made by hand: no model runs here."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import pytest

from stabdiag.errors import ScanError
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.judging.report import PrecisionVerdict, Replayed, Samples, SubjectReport
from stabdiag.repair.attempt import Attempt, State
from stabdiag.repair.outcome import Proven, Reason, Refused
from stabdiag.repair.proof import judge, needs_descent
from stabdiag.repair.remedy import Edit, Remedy, Settings
from stabdiag.repair.wording import words
from stabdiag.trace import Location, SubjectFacts

SAME = Samples([[1.0, 2.0]], 3.0, {"w": [0.1, 0.2], "b": [0.3]}, {"w": 0.2236, "b": 0.3})


def finding(code: str = "SD601", severity: Severity = Severity.ERROR) -> Finding:
    return Finding(severity, "message", code=code, name="name", precisions=["float32"])


def report(*findings: Finding, samples: Samples = SAME, **more: object) -> SubjectReport:
    made = SubjectReport(
        SubjectFacts("model.py", "M", 0, "", ""),
        precisions=[PrecisionVerdict("float32", "safe"), PrecisionVerdict("float16", "safe")],
        findings=list(findings),
        coverage={"batches": 2, "seeds": 2},
        samples=samples,
        ran=["float64", "float32", "float16"],
    )
    return replace(made, **more)  # type: ignore[arg-type]


def attempt(*, keeps_function: bool = True, training: bool = False, text: tuple[str, str] | None = None) -> Attempt:
    change = Settings(lambda case: {}) if training else Edit(lambda source, case: None)
    remedy = Remedy("remedy", "Title", change, "", keeps_function=keeps_function)
    return Attempt(finding(), Fix("remedy", "title"), remedy, State(), text)


def refused(after: SubjectReport, before: SubjectReport | None = None, tried: Attempt | None = None) -> Refused:
    proof = judge(tried or attempt(), before or report(finding()), after)
    assert isinstance(proof, Refused), proof
    assert words(proof)
    return proof


def test_the_same_function_without_the_finding_is_proven() -> None:
    proof = judge(attempt(), report(finding()), report())
    assert proof == Proven(0.0)
    assert words(proof) == "outputs, loss and gradients are unchanged"


def test_the_finding_is_gone() -> None:
    assert refused(report(finding())).reason is Reason.STILL_FOUND
    broken = report(error=ScanError("forward", "it broke"))
    assert refused(broken).reason is Reason.NOT_SCANNED


@pytest.mark.parametrize("severity", [Severity.ERROR, Severity.WARNING])
def test_no_finding_above_info_is_new(severity: Severity) -> None:
    proof = refused(report(finding("SD303", severity)))
    assert (proof.reason, proof.what) == (Reason.NEW_FINDING, "SD303")
    assert isinstance(judge(attempt(), report(finding()), report(finding("SD303", Severity.INFO))), Proven)


def test_a_second_finding_of_a_code_that_was_there_once_is_new() -> None:
    before = report(finding(), finding("SD303", Severity.WARNING))
    after = report(finding("SD303", Severity.WARNING), finding("SD303", Severity.WARNING))
    assert refused(after, before).reason is Reason.NEW_FINDING


def test_what_ran_before_runs() -> None:
    gone = report(ran=["float32", "float16"])
    assert (refused(gone).reason, refused(gone).what) == (Reason.NOT_RUN, "float64")
    narrow = report(precisions=[PrecisionVerdict("float32", "safe"), PrecisionVerdict("float16", "not-run")])
    assert refused(narrow).reason is Reason.NOT_RUN


def test_a_precision_that_is_not_asked_for_any_more_is_no_proof() -> None:
    left_out = report(precisions=[PrecisionVerdict("float32", "safe"), PrecisionVerdict("bfloat16", "safe")])
    assert (refused(left_out).reason, refused(left_out).what) == (Reason.NOT_RUN, "float16")


@pytest.mark.parametrize("key", ["batches", "seeds"])
def test_as_much_is_scanned_as_before(key: str) -> None:
    assert refused(report(coverage={"batches": 2, "seeds": 2, key: 1})).reason is Reason.LESS_PROBED


def test_no_verdict_is_worse() -> None:
    worse = report(precisions=[PrecisionVerdict("float32", "safe"), PrecisionVerdict("float16", "at-risk")])
    assert (refused(worse).reason, refused(worse).what) == (Reason.WORSE_VERDICT, "float16")


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (replace(SAME, outputs=[[1.0, 2.1]]), Reason.OUTPUTS_DIFFER),
        (replace(SAME, outputs=[[1.0, nan]]), Reason.OUTPUTS_DIFFER),
        (replace(SAME, outputs=[[1.0, 2.0], [1.0]]), Reason.NOT_COMPARABLE),
        (replace(SAME, loss=3.1), Reason.LOSS_DIFFERS),
        (replace(SAME, loss=inf), Reason.LOSS_DIFFERS),
        (replace(SAME, gradients={"w": [0.1, 0.2], "b": [0.0]}, norms={"w": 0.2236, "b": 0.0}), Reason.GRADIENTS_DIFFER),
        (replace(SAME, norms={"w": 0.3, "b": 0.3}), Reason.GRADIENTS_DIFFER),
        (replace(SAME, gradients={"w": [0.1, 0.2]}, norms={"w": 0.2236}), Reason.NOT_COMPARABLE),
    ],
)
def test_a_function_that_is_kept_agrees_in_outputs_loss_and_every_gradient(samples: Samples, reason: Reason) -> None:
    assert refused(report(samples=samples)).reason is reason


def test_a_guard_that_makes_every_gradient_zero_is_refused() -> None:
    zeroed = replace(SAME, gradients={"w": [0.0, 0.0], "b": [0.0]}, norms={"w": 0.0, "b": 0.0})
    assert refused(report(samples=zeroed)).reason is Reason.GRADIENTS_DIFFER


def test_a_gradient_is_compared_relative_to_its_own_size() -> None:
    before = replace(SAME, gradients={"w": [0.1, 0.2], "b": [3e-7]}, norms={"w": 0.2236, "b": 3e-7})
    after = replace(before, gradients={"w": [0.1, 0.2], "b": [0.0]}, norms={"w": 0.2236, "b": 0.0})
    assert refused(report(samples=after), report(finding(), samples=before)).what == "b"


def test_a_gradient_that_is_rounding_alone_may_differ() -> None:
    before = replace(SAME, gradients={"w": [0.1, 0.2], "b": [3e-17]}, norms={"w": 0.2236, "b": 3e-17})
    after = replace(before, gradients={"w": [0.1, 0.2], "b": [-1e-17]}, norms={"w": 0.2236, "b": 1e-17})
    assert isinstance(judge(attempt(), report(finding(), samples=before), report(samples=after)), Proven)


def test_outputs_and_gradients_that_are_all_zero_prove_nothing() -> None:
    silent = replace(SAME, outputs=[[0.0, 0.0]])
    assert refused(report(samples=silent), report(finding(), samples=silent)).reason is Reason.NOT_COMPARABLE
    flat = replace(SAME, gradients={"w": [0.0, 0.0], "b": [0.0]}, norms={"w": 0.0, "b": 0.0})
    assert refused(report(samples=flat), report(finding(), samples=flat)).reason is Reason.NOT_COMPARABLE


def test_what_was_not_finite_is_not_compared() -> None:
    before = Samples([[nan, 2.0]], 3.0, {"w": [nan, 0.2], "b": [0.3]}, {"w": nan, "b": 0.3})
    after = replace(SAME, outputs=[[7.0, 2.0]], gradients={"w": [9.0, 0.2], "b": [0.3]})
    assert isinstance(judge(attempt(), report(finding(), samples=before), report(samples=after)), Proven)


def test_gradients_of_a_loss_that_is_not_finite_mean_nothing() -> None:
    before = report(finding(), samples=replace(SAME, loss=nan), descent=[nan])
    other = replace(SAME, gradients={"w": [0.5, 0.2], "b": [0.3]}, norms={"w": 0.54, "b": 0.3})
    assert isinstance(judge(attempt(), before, report(samples=other, descent=[3.0, 2.0])), Proven)
    assert refused(report(samples=other, descent=[3.0, 3.0]), before).reason is Reason.DESCENDS_LESS


def test_where_nothing_was_finite_the_repaired_model_has_to_descend() -> None:
    before = report(finding(), samples=Samples([[nan]], nan, {"w": [nan]}, {"w": nan}), descent=[nan])
    after = replace(SAME, outputs=[[1.0]], gradients={"w": [0.1]}, norms={"w": 0.1})
    assert needs_descent(attempt(), before)
    assert refused(report(samples=after), before).reason is Reason.DESCENDS_LESS
    assert isinstance(judge(attempt(), before, report(samples=after, descent=[2.0, 1.5])), Proven)


def test_outputs_may_move_into_the_loss() -> None:
    text = (
        "def forward(x):\n    return softmax(x)\n\n\ndef loss(p):\n    return log(p)\n",
        "def forward(x):\n    return x\n\n\ndef loss(p):\n    return log_softmax(p)\n",
    )
    logits = replace(SAME, outputs=[[5.0, 6.0]])
    proof = judge(attempt(text=text), report(finding()), report(samples=logits))
    assert isinstance(proof, Proven) and proof.logits
    assert refused(report(samples=replace(logits, loss=3.1)), tried=attempt(text=text)).reason is Reason.LOSS_DIFFERS
    infinite = report(finding(), samples=replace(SAME, loss=inf), descent=[inf])
    assert isinstance(judge(attempt(text=text), infinite, report(samples=logits, descent=[3.0, 2.0])), Proven)
    assert refused(report(samples=logits, descent=[3.0, 3.0]), infinite, attempt(text=text)).reason is Reason.DESCENDS_LESS
    one_place = (text[0], text[0].replace("log(p)", "log_softmax(p)"))
    assert refused(report(samples=logits), tried=attempt(text=one_place)).reason is Reason.OUTPUTS_DIFFER


def test_the_state_that_broke_the_original_breaks_nothing() -> None:
    broken = Replayed("the gradient of w is not finite", "model.py", 7)
    proof = refused(report(replayed=[Replayed(""), broken]))
    assert (proof.reason, proof.what) == (Reason.BREAKS_AGAIN, "the gradient of w is not finite")
    assert isinstance(judge(attempt(), report(finding()), report(replayed=[Replayed("")])), Proven)


def test_what_breaks_in_that_state_on_the_line_of_another_finding_is_repaired_by_itself() -> None:
    other = replace(finding("SD605"), location=Location("model.py", 7))
    after = report(other, replayed=[Replayed("the loss is not finite", "model.py", 7)])
    assert isinstance(judge(attempt(), report(finding(), other), after), Proven)
    quiet = report(replace(other, severity=Severity.INFO), replayed=after.replayed)
    assert refused(quiet, report(finding(), other)).reason is Reason.BREAKS_AGAIN


@pytest.mark.parametrize(
    ("before", "after", "good"),
    [
        ([3.0, 2.0], [3.0, 2.0], True),
        ([3.0, 2.0], [1.0, 0.9], True),
        ([3.0, 2.0], [9.0, 2.01], True),
        ([3.0, 2.0], [3.0, 2.1], False),
        ([3.0, 2.0], [1.5, 1.5], False),
        ([3.0, 2.0], [3.0, nan], False),
        ([3.0, 2.0], [], False),
        ([nan], [3.0, 2.9], True),
    ],
)
def test_a_change_by_design_descends_at_least_as_far(before: list[float], after: list[float], good: bool) -> None:
    changed = report(samples=replace(SAME, outputs=[[9.0]]), descent=after)
    proof = judge(attempt(keeps_function=False), report(finding(), descent=before), changed)
    assert isinstance(proof, Proven) is good, proof


def test_a_training_setting_has_to_train() -> None:
    def rows(*losses: float) -> dict[str, object]:
        return {"rows": [{"precision": "float32", "seed": 0, "loss": loss} for loss in losses]}

    tried = attempt(training=True)
    assert isinstance(judge(tried, report(finding()), report(training=rows(2.0, 1.0))), Proven)
    assert refused(report(training=rows(2.0, 2.5)), tried=tried).reason is Reason.DESCENDS_LESS


def test_an_error_that_became_a_warning_says_so() -> None:
    proof = judge(attempt(), report(finding()), report(finding(severity=Severity.WARNING)))
    assert isinstance(proof, Proven) and proof.weakened
    assert words(proof).startswith("an error before, a warning now")
