"""`stabdiag fix`: what it prints, what it writes, and what it refuses. The models are scanned by a stand-in."""

import json
import subprocess
from pathlib import Path

import pytest

from stabdiag.commands import application as cli
from stabdiag.errors import ScanError
from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import PrecisionVerdict, Samples, SubjectReport
from stabdiag.repair.outcome import Reason, Refused
from stabdiag.trace import Location, SubjectFacts

SICK = "import torch\n\n\ndef loss(z):\n    return torch.log(torch.softmax(z, dim=1)).mean()\n"
WELL = SICK.replace("torch.log(torch.softmax(z, dim=1))", "torch.nn.functional.log_softmax(z, dim=1)")


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Finds SD601 on the line with `torch.log(` of the edited text, else of the file."""

    def scan(request, progress):
        path = Path(request.target)
        if not path.is_file():
            return SubjectReport(SubjectFacts(str(path), "", 0, "", ""), error=ScanError("load", f"{path} does not exist"))
        text = request.edited.get(str(path.resolve())) or path.read_bytes().decode("utf-8-sig", "replace")
        lines = [n for n, line in enumerate(text.splitlines(), 1) if "torch.log(" in line]
        at = [Location(path.name, n, text.splitlines()[n - 1].index("torch.log(")) for n in lines]
        findings = [Finding(Severity.ERROR, "breaks", code="SD601", name="log-of-softmax", op="log", location=a) for a in at]
        return SubjectReport(
            SubjectFacts(str(path), "M", 0, "", ""), findings=findings, rules_run=["SD601"], samples=Samples([[1.0]], 1.0)
        )

    monkeypatch.setattr("stabdiag.scanning.session._scanned", scan)
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(SICK)


def fix(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run(["fix", *arguments])
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def test_it_prints_a_table_and_a_diff_and_edits_nothing(capsys):
    code, out, _ = fix(capsys, "model.py")
    assert code == 0
    assert "SD601 log-of-softmax:5  log-softmax  yes" in out
    assert "1 error or warning → 0; fixes: 1 tried, 1 proven" in out
    assert "+    return torch.nn.functional.log_softmax(z, dim=1).mean()\n" in out
    assert Path("model.py").read_text() == SICK


def test_the_diff_can_be_applied(capsys):
    out = fix(capsys, "model.py")[1]
    subprocess.run(["patch", "-p1"], input=out[out.index("--- a/") :], text=True, check=True, capture_output=True)
    assert Path("model.py").read_text() == WELL


def test_the_edited_file_is_written_where_it_is_asked_for(capsys):
    code, _, err = fix(capsys, "model.py", "-o", "fixed.py")
    assert (code, Path("fixed.py").read_text(), Path("model.py").read_text()) == (0, WELL, SICK)
    assert err == "wrote fixed.py\n"


def test_a_healthy_file_is_written_as_it_is(capsys):
    Path("model.py").write_text(WELL)
    code, out, _ = fix(capsys, "model.py", "-o", "fixed.py")
    assert (code, out) == (0, "nothing to fix\n")
    assert Path("fixed.py").read_text() == WELL


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf", b"# coding: latin-1\r\n# \xfc\r\n"])
def test_in_place_line_endings_and_encoding_stay(capsys, prefix):
    Path("model.py").write_bytes(prefix + SICK.replace("\n", "\r\n").encode())
    Path("model.py").chmod(0o640)
    assert fix(capsys, "model.py", "--write")[0] == 0
    assert Path("model.py").read_bytes() == prefix + WELL.replace("\n", "\r\n").encode()
    assert Path("model.py").stat().st_mode & 0o777 == 0o640


def git(*arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], check=True, capture_output=True)


def test_in_place_only_what_git_can_bring_back(capsys):
    git("init")
    code, out, err = fix(capsys, "model.py", "--write")
    assert (code, out) == (2, "")
    assert "is not under version control; commit it first, or give --force" in err
    git("add", "."), git("commit", "-m", "model")
    Path("model.py").write_text(SICK + "# a note\n")
    assert "has uncommitted changes" in fix(capsys, "model.py", "--write")[2]
    assert Path("model.py").read_text() == SICK + "# a note\n"
    assert fix(capsys, "model.py", "--write", "--force")[0] == 0
    assert Path("model.py").read_text() == WELL + "# a note\n"
    git("commit", "-am", "fixed")
    Path("model.py").write_text(SICK)
    git("commit", "-am", "sick again")
    assert fix(capsys, "model.py", "--write")[0] == 0


def test_a_dirty_or_unwritable_file_is_refused_before_anything_is_scanned(capsys, monkeypatch):
    monkeypatch.setattr("stabdiag.scanning.session._scanned", lambda *a: pytest.fail("scanned"))
    git("init")
    assert fix(capsys, "model.py", "--write")[0] == 2
    monkeypatch.setattr("os.access", lambda *a: False)
    code, _, err = fix(capsys, "model.py", "--write", "--force")
    assert (code, err) == (2, "error: cannot write model.py: permission denied\n")


def test_json_holds_every_attempt_the_diffs_and_what_is_left(capsys):
    code, out, _ = fix(capsys, "model.py", "-f", "json")
    found = json.loads(out)
    assert (code, found["schema"], found["left"]) == (0, "stabdiag-fix/v1", [])
    attempt = found["attempts"][0]
    assert (attempt["name"], attempt["proven"], attempt["accepted"], attempt["finding"]["code"]) == (
        "log-softmax",
        True,
        True,
        "SD601",
    )
    assert "+    return torch.nn.functional.log_softmax(z, dim=1).mean()" in found["diffs"]["model.py"]
    assert "text or json, not csv" in fix(capsys, "model.py", "-f", "csv")[2]


def test_another_precision_is_a_verdict_beside_the_fixes(capsys, monkeypatch):
    rows = [PrecisionVerdict("float16", "fails"), PrecisionVerdict("bfloat16", "safe")]
    report = SubjectReport(SubjectFacts("model.py", "M", 0, "", ""), precisions=rows)
    monkeypatch.setattr("stabdiag.scanning.session._scanned", lambda *a: report)
    assert "nothing to fix" in fix(capsys, "model.py")[1]
    report.findings = [Finding(Severity.ERROR, "overflows", code="SD302", name="overflow", precisions=["float16"])]
    code, out, _ = fix(capsys, "model.py")
    assert code == 1 and "precision: float16 fails, bfloat16 is safe: train in bfloat16\n" in out


def test_findings_that_are_not_selected_are_left_alone(capsys):
    assert fix(capsys, "model.py", "--select", "SD2")[0] == 0
    assert fix(capsys, "model.py", "--ignore", "SD601")[1].endswith("fixes: 0 tried, 0 proven\n")


def test_what_cannot_be_repaired_exits_1_and_is_shown_on_demand(capsys):
    Path("model.py").write_text(SICK.replace("torch.softmax(z, dim=1)", "f(z).clamp_min(1e-6)"))
    code, out, _ = fix(capsys, "model.py")
    assert code == 1
    assert "1 error or warning → 1" in out
    assert "left: SD601 log-of-softmax at model.py:5: no remedy applies to this code\n" in out


def test_failed_attempts_are_shown_on_demand(capsys, monkeypatch):
    monkeypatch.setattr("stabdiag.repair.search.judge", lambda *a: Refused(Reason.LOSS_DIFFERS, difference=0.5))
    assert "no      " not in fix(capsys, "model.py")[1]
    assert "no      " in (out := fix(capsys, "model.py", "--unproven")[1]) and "changes the loss by 5.0e-01" in out


def test_a_scan_that_does_not_happen_exits_2(capsys):
    code, out, err = fix(capsys, "missing.py")
    assert (code, out, err) == (2, "", "error: missing.py does not exist\n")


def test_scan_shows_proven_fixes_where_it_is_asked_to(capsys):
    assert cli.run(["scan", "model.py", "--try-fixes"]) == 1
    out = capsys.readouterr().out
    assert "proven" in out and "log of a" not in out
    cli.run(["scan", "model.py", "--try-fixes", "-f", "json"])
    assert '"proven": true' in capsys.readouterr().out
    assert Path("model.py").read_text() == SICK
