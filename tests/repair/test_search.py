"""The loop that tries fixes, with a scan that answers from a table: no model runs here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stabdiag.errors import ScanError
from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import Samples, SubjectReport
from stabdiag.repair.outcome import Reason, Refused
from stabdiag.repair.search import Outcome, annotate, prove
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Location, SubjectFacts

TEXT = "import torch\n\n\ndef f(z, v):\n    y = torch.log(torch.softmax(z, dim=1))\n    return y + torch.exp(v)\n"


def finding(code: str = "SD601", line: int = 5, severity: Severity = Severity.ERROR, **more: object) -> Finding:
    column = 8 if line == 5 else 15
    return Finding(
        severity,
        "message",
        "m",
        "log",
        code=code,
        name="name",
        precisions=["float32"],
        location=Location("model.py", line, column),
        **more,
    )  # type: ignore[arg-type]


def report(*findings: Finding, outputs: tuple[float, ...] = (1.0, 2.0), loss: float = 1.0) -> SubjectReport:
    return SubjectReport(
        SubjectFacts("model.py", "M", 0, "", ""), findings=list(findings), samples=Samples([list(outputs)], loss)
    )


@pytest.fixture
def request_(tmp_path: Path) -> ScanRequest:
    path = tmp_path / "model.py"
    path.write_text(TEXT)
    return ScanRequest(str(path))


def run(request: ScanRequest, answers: dict[str, SubjectReport], asked: list[ScanRequest] | None = None) -> Outcome:
    """Scan by the text: the first key that the edited text contains decides; "" is the model as it is."""

    def scan(trial: ScanRequest) -> SubjectReport:
        if asked is not None:
            asked.append(trial)
        text = "".join(trial.edited.values())
        return replace(next(answers[key] for key in answers if key in text))

    return prove(request, scan)


def test_a_fix_that_removes_the_finding_and_keeps_the_function_is_proven(request_: ScanRequest) -> None:
    outcome = run(request_, {"log_softmax": report(), "": report(finding())})
    assert [a.fix.name for a in outcome.accepted] == ["log-softmax"]
    fix = outcome.accepted[0].fix
    assert fix.proven and fix.note == "outputs, loss and gradients are unchanged" and fix.after == "gone"
    assert "+    y = torch.nn.functional.log_softmax(z, dim=1)" in fix.diff
    assert "log_softmax" in "".join(outcome.state.texts.values())
    assert outcome.after.findings == []


def test_a_finding_that_stays_is_not_proven(request_: ScanRequest) -> None:
    outcome = run(request_, {"": report(finding())})
    assert outcome.accepted == [] and outcome.state.texts == {}
    assert all(isinstance(a.proof, Refused) and a.proof.reason is Reason.STILL_FOUND for a in outcome.attempts)
    assert outcome.attempts[0].fix.note == "still found: message"


def test_a_new_error_refuses_a_fix(request_: ScanRequest) -> None:
    outcome = run(request_, {"log_softmax": report(finding("SD301")), "": report(finding())})
    assert outcome.accepted == []
    assert outcome.attempts[0].fix.note == "brings SD301: message"


def test_another_output_refuses_a_fix_that_keeps_the_function(request_: ScanRequest) -> None:
    outcome = run(request_, {"log_softmax": report(outputs=(1.0, 2.1)), "": report(finding())})
    assert outcome.accepted == []
    assert outcome.attempts[0].fix.note == "changes the outputs by 4.5e-02 of their size"


def test_outputs_that_were_not_finite_do_not_count(request_: ScanRequest) -> None:
    nan = float("nan")
    outcome = run(request_, {"log_softmax": report(outputs=(7.0, 2.0)), "": report(finding(), outputs=(nan, 2.0))})
    assert [a.fix.name for a in outcome.accepted] == ["log-softmax"]


def test_a_model_that_breaks_refuses_a_fix(request_: ScanRequest) -> None:
    broken = report()
    broken.error = ScanError("forward", "it broke")
    outcome = run(request_, {"log_softmax": broken, "": report(finding())})
    assert outcome.attempts[0].fix.note == "the edited model could not be scanned: it broke"


def test_fixes_build_on_each_other(request_: ScanRequest) -> None:
    later = finding("SD605", 6)
    answers = {"clamp(max=10.0)": report(), "log_softmax": report(later), "": report(finding(), later)}
    outcome = run(request_, answers)
    assert [a.fix.name for a in outcome.accepted] == ["log-softmax", "clamp-exponent"]
    text = "".join(outcome.state.texts.values())
    assert "log_softmax" in text and "torch.exp(v.clamp(max=10.0))" in text


def test_a_trial_is_cheap_and_a_proof_is_not(request_: ScanRequest) -> None:
    asked: list[ScanRequest] = []
    run(request_, {"log_softmax": report(), "": report(finding())}, asked)
    assert [trial.precisions for trial in asked] == [[], ["float32"], []]  # empty: the default ones
    assert asked[1].batches == asked[1].seeds == 1


def test_suppressed_and_unwanted_findings_and_information_are_left_alone(request_: ScanRequest) -> None:
    left = report(finding(status="suppressed"), finding("SD605", 6, Severity.INFO))
    assert run(request_, {"": left}).attempts == []
    assert prove(request_, lambda trial: report(finding()), lambda found: found.code == "SD201").attempts == []


def test_a_healthy_model_gets_no_proposal(request_: ScanRequest) -> None:
    asked: list[ScanRequest] = []
    outcome = run(request_, {"": report()}, asked)
    assert outcome.attempts == [] and len(asked) == 1


def test_the_report_shows_what_was_tried_proven_fixes_first(request_: ScanRequest) -> None:
    outcome = run(request_, {"log_softmax": report(), "": report(finding())})
    annotate(outcome.before, outcome)
    first = outcome.before.findings[0].fixes[0]
    assert (first.name, first.proven) == ("log-softmax", True)
