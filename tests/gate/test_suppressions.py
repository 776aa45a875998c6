from types import SimpleNamespace

import pytest

from stabdiag.finding import Finding, Severity
from stabdiag.gate import suppressions
from stabdiag.judging.report import OpRow, Report, SubjectReport
from stabdiag.trace import Location, SubjectFacts

RULES = {"SD201": "dead-relu", "SD301": "non-finite", "SD001": "unused-suppression"}


@pytest.fixture(autouse=True)
def rules(monkeypatch):
    known = {code: SimpleNamespace(code=code, name=name) for code, name in RULES.items()}
    monkeypatch.setattr(suppressions, "all_rules", lambda: known)


@pytest.fixture
def settled(tmp_path, monkeypatch):
    """Apply the comments of a source text to findings, given as (code, line)."""
    monkeypatch.chdir(tmp_path)

    def settle(source, *findings, ran=(), rules_run=tuple(RULES)):
        (tmp_path / "net.py").write_text(source)
        run = SubjectReport(SubjectFacts("net.py", "Net", 1, "", ""), rules_run=[*rules_run])
        run.findings = [
            Finding(Severity.ERROR, "", code=code, name=RULES[code], location=Location("net.py", line), path="net.py")
            for code, line in findings
        ]
        run.op_rows = [OpRow(0, "float32", "forward", "", "relu", "net.py", line, *[None] * 12) for line in ran]
        (unused,) = suppressions.apply(Report("0", [run]))
        return run.findings + unused

    return settle


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("y = f(x)  # stabdiag: ignore[SD201] measured in May\n", 1),
        ("y = f(x)  #stabdiag:ignore[SD201]\n", 1),
        ("y = f(x)  # noqa # stabdiag: ignore[SD201] # more\n", 1),
        ("y = f(x)  # stabdiag: ignore[dead-relu]\n", 1),
        ("y = f(x)  # stabdiag: ignore[SD301, SD201]\n", 1),
        ("# stabdiag: ignore[SD201] reason\ny = f(x)\n", 2),
        ("# stabdiag: ignore[SD201] reason\n# and a word\ny = f(x)\n", 3),
        ("y = f(\n    x,  # stabdiag: ignore[SD201]\n)\n", 1),
        ("# stabdiag: ignore[SD201]\ny = f(\n    x,\n)\n", 3),
        ("x = 1\ny = 2\n# stabdiag: file-ignore[SD201] generated\n", 2),
        ("y = f(x)  # stabdiag: ignore[SD201]\r\nz = 1\r\n", 1),
    ],
)
def test_a_comment_silences_the_finding_at_its_statement(settled, source, line):
    assert settled(source, ("SD201", line))[0].status == "suppressed"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("y = f(x)  # stabdiag: ignore[SD301]\n", 1),
        ("y = f(x)  # stabdiag: ignore\n", 1),
        ("y = f(x)  # stabdiag: ignore[]\n", 1),
        ("y = f(x)  # stabdiag: ignore[SD2]\n", 1),
        ("y = '# stabdiag: ignore[SD201]'\n", 1),
        ("'''\n# stabdiag: ignore[SD201]\n'''\ny = 1\n", 4),
        ("x = 1  # stabdiag: ignore[SD201]\ny = f(x)\n", 2),
        ("# stabdiag: ignore[SD201]\n\ny = f(x)\n", 3),
        ("# stabdiag: ignore[SD201]\nx = 1\ny = f(x)\n", 3),
        ("def broken(:  # stabdiag: ignore[SD201]\n", 1),
    ],
)
def test_and_no_other(settled, source, line):
    assert settled(source, ("SD201", line))[0].status == "new"


def test_the_reason_is_kept(settled):
    (finding,) = settled("y = f(x)  # stabdiag: ignore[SD201] measured in May\n", ("SD201", 1))
    assert finding.evidence["suppression"] == "measured in May"


def test_a_comment_that_silences_nothing_is_found_at_its_place(settled):
    (finding,) = settled("def f(x):\n    return x  # stabdiag: ignore[SD201] once\n", ran=[2])
    assert (finding.code, finding.severity) == ("SD001", Severity.WARNING)
    assert (finding.location.line, finding.location.column) == (2, 14)
    assert "`SD201` silences nothing" in finding.message


def test_one_of_two_codes_can_be_unused(settled):
    findings = settled("y = f(x)  # stabdiag: ignore[SD201, SD301]\n", ("SD201", 1))
    assert [(f.code, f.status) for f in findings] == [("SD201", "suppressed"), ("SD001", "new")]
    assert "SD301" in findings[1].message


def test_code_that_was_not_run_is_not_judged(settled):
    source = "class A:\n    y = 1\nclass B:\n    y = 1  # stabdiag: ignore[SD201]\n"
    assert settled(source, ran=[2]) == []
    assert len(settled(source, ran=[4])) == 1


def test_a_rule_that_was_off_is_not_judged(settled):
    source = "y = 1  # stabdiag: ignore[SD301]\n"
    assert len(settled(source, ran=[1], rules_run=["SD001", "SD301"])) == 1
    assert settled(source, ran=[1], rules_run=["SD001", "SD201"]) == []


def test_unknown_and_missing_codes_are_said(settled):
    (unknown,) = settled("y = 1  # stabdiag: ignore[dead-rleu]\n")
    assert "did you mean `dead-relu`" in unknown.message
    (blanket,) = settled("y = 1  # stabdiag: ignore\n")
    assert "names no rule" in blanket.message


def test_a_file_scanned_twice_is_judged_once_over_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("y = f(x)  # stabdiag: ignore[SD201]\n")
    runs = [SubjectReport(SubjectFacts("net.py", name, 1, "", ""), rules_run=[*RULES]) for name in "AB"]
    runs[1].findings = [Finding(Severity.ERROR, "", code="SD201", name="dead-relu", location=Location("net.py", 1))]
    assert suppressions.apply(Report("0", runs)) == [[], []]
    assert runs[1].findings[0].status == "suppressed"
