"""One row per precision: which finding decides it, and what the numbers say without one."""

from __future__ import annotations

import pytest

from stabdiag.finding import Finding, Severity
from stabdiag.judging.verdict import verdicts
from stabdiag.rule import all_rules
from stabdiag.trace import Location, Parameter, Run
from tests.guards.graph import Graph, stats, trace

BLOCKING = next(code for code, rule in all_rules().items() if rule.blocks and rule.kind != "scan")
OTHER = next(code for code, rule in all_rules().items() if not rule.blocks and rule.kind != "scan")


def run(precision: str, loss: float = 1.0) -> Run:
    graph = Graph(precision)
    found = graph.ends(graph.op("mm", graph.leaf()))
    found.loss = loss
    return found


def row(*findings: Finding, of: Run | None = None) -> tuple[str, str]:
    (found,) = verdicts(trace(run("float64"), run("float32"), of or run("bfloat16")), [*findings], ["bfloat16"])
    return found.verdict, found.where


def finding(code: str, severity: Severity, line: int | None = 3, precision: str = "bfloat16") -> Finding:
    at = Location("net.py", line) if line is not None else None
    blocks = [precision] if all_rules()[code].blocks else []
    return Finding(severity, code, code=code, name="", precisions=[precision], location=at, blocks=blocks)


@pytest.mark.parametrize(
    ("code", "severity", "verdict"),
    [
        (BLOCKING, Severity.ERROR, "fails"),
        (BLOCKING, Severity.WARNING, "at-risk"),
        (OTHER, Severity.ERROR, "at-risk"),
        (OTHER, Severity.WARNING, "safe"),
        (BLOCKING, Severity.INFO, "safe"),
    ],
)
def test_the_worst_finding_decides(code: str, severity: Severity, verdict: str) -> None:
    assert row(finding(code, severity))[0] == verdict


def test_a_finding_about_another_precision_decides_nothing() -> None:
    assert row(finding(BLOCKING, Severity.ERROR, precision="float16")) == ("safe", "")


def test_the_row_names_the_first_line_that_is_known() -> None:
    assert row(finding(BLOCKING, Severity.ERROR, None), finding(BLOCKING, Severity.ERROR, 7)) == ("fails", "net.py:7")


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_fails(loss: float) -> None:
    assert row(of=run("bfloat16", loss))[0] == "fails"


def test_a_gradient_that_is_not_finite_fails() -> None:
    of = run("bfloat16")
    of.parameters.append(Parameter("w", "", "Linear", (8, 8), True, stats(), stats(nan=1)))
    assert row(of=of)[0] == "fails"
