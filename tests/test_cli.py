import json
import os
import signal
import subprocess
import sys
import time

import pytest

from stabdiag import __version__
from stabdiag.reports import formats


def test_findings_are_1_and_none_are_0(stabdiag, scanned):
    assert stabdiag("scan", "net.py")[0] == 1
    assert stabdiag("scan", "ok.py")[0] == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--fail-on", "never"], 0),
        (["--fail-on", "info"], 1),
        (["--exit-zero"], 0),
        (["--min-severity", "warning"], 1),
    ],
)
def test_what_fails_can_be_chosen(stabdiag, scanned, options, code):
    assert stabdiag("scan", "net.py", *options)[0] == code


def test_an_error_outranks_findings_and_exit_zero(stabdiag, scanned):
    code, out, err = stabdiag("scan", "net.py", "missing.py", "--exit-zero")
    assert code == 2
    assert "error: models/missing.py does not exist; give the path of a Python file" in err
    assert "error[SD201]" in out


def test_a_failed_scan_is_one_sentence_and_in_json_the_report_has_it_too(stabdiag, scanned):
    code, out, err = stabdiag("scan", "missing.py")
    assert (code, out) == (2, "")
    assert err == "error: models/missing.py does not exist; give the path of a Python file\n"
    code, out, _ = stabdiag("scan", "missing.py", "-f", "json")
    assert code == 2
    assert json.loads(out)["runs"][0]["error"]["kind"] == "load"


def test_the_traceback_is_for_verbose(stabdiag, scanned):
    assert "Traceback" not in stabdiag("scan", "missing.py")[2]
    assert "Traceback" in stabdiag("scan", "missing.py", "-v")[2]


def test_stdout_is_the_report_and_stderr_ends_with_the_cost(stabdiag, scanned):
    _, out, err = stabdiag("scan", "net.py", "-f", "json")
    assert json.loads(out)["schema"] == "stabdiag/v1"
    assert "`stabdiag rule SD201` explains it, `stabdiag fix models/net.py` tries the fixes" in err
    assert err.splitlines()[-1].startswith("scanned in ")


def test_options_reach_the_request(stabdiag, scanned):
    stabdiag(
        *(
            "scan",
            "net.py:Net",
            "--input",
            "8x3",
            "--input",
            "ids=4x8:int64<9",
            "--arg",
            "width=8",
            "--arg",
            "name=tiny",
        ),
        *(
            "-p",
            "float32,bfloat16",
            "-p",
            "float16",
            "--device",
            "cpu",
            "--batches",
            "3",
            "--seeds",
            "2",
            "--steps",
            "5",
        ),
        *("--budget", "20", "--timeout", "60", "--memory-limit", "8G", "--optimizer", "sgd", "--lr", "0.1"),
        *("--momentum", "0.9", "--clip", "1", "--try-fixes", "--data", "x.npz", "--weights", "w.safetensors"),
    )
    (request,) = scanned.requests
    assert request.target == "net.py:Net"
    assert request.inputs == ["8x3", "ids=4x8:int64<9"]
    assert request.arguments == {"width": 8, "name": "tiny"}
    assert request.precisions == ["float32", "bfloat16", "float16"]
    assert (request.batches, request.seeds, request.steps, request.budget) == (3, 2, 5, 20.0)
    assert (request.timeout, request.memory_limit) == (60.0, 8 * 2**30)
    assert (request.optimizer, request.lr, request.momentum, request.clip) == ("sgd", 0.1, 0.9, 1.0)
    assert request.try_fixes and not request.verbose
    assert (request.data, request.weights, request.device) == ("x.npz", "w.safetensors", "cpu")


def test_every_target_is_scanned_in_order(stabdiag, scanned):
    _, out, _ = stabdiag("scan", "ok.py", "net.py", "-f", "json", "--jobs", "2")
    assert [run["subject"]["path"] for run in json.loads(out)["runs"]] == ["models/ok.py", "models/net.py"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scan", "net.py", "-p", "flot16"], "did you mean `float16`?"),
        (["scan", "net.py", "-f", "jsn"], "did you mean `json`?"),
        (["scan", "net.py", "--fail-on", "eror"], "did you mean `error`?"),
        (["scan", "net.py", "--min-severity", "warn"], "did you mean `warning`?"),
        (["scan", "net.py", "--device", "cud"], "did you mean `cuda`?"),
        (["scan", "net.py", "--select", "SD999"], "unknown rule `SD999`"),
        (["scan", "net.py", "--arg", "width"], "--arg name=value"),
        (["scan", "net.py", "--memory-limit", "lots"], "expected a size such as 8G"),
        (["scan", "net.py", "--budget", "0"], "`budget` is 0.0, expected more than 0"),
        (["scan", "net.py", "--batches", "x"], "--batches"),
        (["scan", "net.py", "-o", "report.docx"], "cannot tell a format from `report.docx`"),
        (["scan", "net.py", "-o", "nowhere/report.json"], "there is no folder nowhere"),
        (["scan", "net.py", "--config", "none.toml"], "cannot read none.toml"),
        (["scan"], "nothing to scan"),
        (["scan", "net.py", "--presicion", "float16"], "--precision"),
        (["scna"], "scan"),
        (["model.py"], "did you mean `stabdiag scan model.py`?"),
        (["rule", "SD9999"], "no rule `SD9999`"),
        (["rule", "-f", "jsno"], "did you mean `json`?"),
        (["report", "none.json"], "cannot read none.json"),
    ],
)
def test_bad_usage_is_one_sentence_and_2(stabdiag, scanned, arguments, said):
    code, out, err = stabdiag(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert not scanned.requests, "nothing is scanned when the command line is wrong"


def test_an_internal_error_is_2_with_the_traceback_for_verbose(stabdiag, scanned):
    code, out, err = stabdiag("scan", "unknown_to_the_fixture.py")
    assert (code, out) == (2, "") and err.startswith("error: internal error (KeyError")
    assert "Traceback" in stabdiag("scan", "unknown_to_the_fixture.py", "-v")[2]


def test_ctrl_c_is_130(stabdiag, scanned):
    def interrupted():
        raise KeyboardInterrupt

    scanned.makers["slow.py"] = interrupted
    code, out, err = stabdiag("scan", "slow.py")
    assert (code, out, err) == (130, "", "interrupted\n")


def test_files_are_written_next_to_stdout(stabdiag, scanned, tmp_path):
    code, out, _ = stabdiag("scan", "net.py", "-o", "a b.json", "-o", "größe.csv", "--layers", "layers.csv")
    assert code == 1 and "error[SD201]" in out
    assert json.loads((tmp_path / "a b.json").read_text())["schema"] == "stabdiag/v1"
    assert (tmp_path / "größe.csv").read_text().startswith("model,code")
    assert (tmp_path / "layers.csv").read_text().startswith("model,index,precision")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a b.json", "größe.csv", "layers.csv"]


def test_an_interrupted_scan_leaves_the_old_file(stabdiag, scanned, tmp_path):
    (tmp_path / "run.json").write_text("old")
    stabdiag("scan", "unknown_to_the_fixture.py", "-o", "run.json")
    assert (tmp_path / "run.json").read_text() == "old"


def test_a_saved_run_renders_the_same(stabdiag, scanned, tmp_path):
    _, text, _ = stabdiag("scan", "net.py", "-o", "run.json")
    assert stabdiag("report", "run.json") == (0, text, "")
    (tmp_path / "cut.json").write_text((tmp_path / "run.json").read_text()[:500])
    code, out, err = stabdiag("report", "cut.json")
    assert (code, out) == (2, "") and "no complete JSON" in err


def test_two_runs_give_the_same_bytes_in_every_format(stabdiag, scanned):
    for name in formats():
        assert stabdiag("scan", "net.py", "ok.py", "-f", name)[1] == stabdiag("scan", "net.py", "ok.py", "-f", name)[1]


def test_version_and_help(stabdiag):
    assert stabdiag("--version") == (0, f"stabdiag {__version__}\n", "")
    for arguments in ([], ["--help"], ["scan", "--help"], ["rule", "-h"]):
        code, out, _ = stabdiag(*arguments)
        assert code == 0 and "Usage" in out


def child(*arguments, **options):
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, **options)


@pytest.mark.parametrize("arguments", [["--help"], ["rule", "--all"], ["rule"], ["scan", "--help"], ["report", "-h"]])
def test_what_explains_does_not_load_what_measures(arguments):
    code = (
        "import sys; from stabdiag.commands.application import run; "
        f"assert run({arguments!r}) == 0; "
        "print([m for m in ('torch', 'pandas', 'numba', 'jinja2') if m in sys.modules], file=sys.stderr)"
    )
    done = child("-c", code)
    assert done.returncode == 0
    assert done.stderr == "[]\n"


def test_a_saved_report_is_rendered_without_torch(stabdiag, scanned, tmp_path):
    stabdiag("scan", "net.py", "-o", "run.json")
    for name in formats():
        done = child(
            "-c",
            f"import sys; from stabdiag.commands.application import run; run(['report', 'run.json', '-f', {name!r}]); "
            "sys.exit('torch' in sys.modules or 'numba' in sys.modules)",
            cwd=tmp_path,
        )
        assert done.returncode == 0, (name, done.stderr)


def test_a_closed_pipe_is_no_error(stabdiag, scanned, tmp_path):
    stabdiag("scan", "net.py", "-o", "run.json")
    command = f"{sys.executable} -m stabdiag report run.json -f json | head -n 1; echo ${{PIPESTATUS[0]}}"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout == "{\n0\n"
    assert done.stderr == ""


def test_who_ends_a_scan_ends_its_worker(tmp_path):
    build = "def build_model():\n    print(os.getpid(), file=open('pid', 'w'), flush=True)\n    time.sleep(60)\n"
    (tmp_path / "slow.py").write_text(f"import os, time\n\n\n{build}")
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    scan = subprocess.Popen([sys.executable, "-m", "stabdiag", "scan", "slow.py"], cwd=tmp_path, env=environment)
    pid = tmp_path / "pid"
    while not pid.exists() or not pid.read_text().strip():
        assert scan.poll() is None
        time.sleep(0.05)
    scan.send_signal(signal.SIGTERM)
    assert scan.wait(timeout=30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_annotations_come_with_a_job_summary(stabdiag, scanned, tmp_path, monkeypatch):
    (tmp_path / "summary.md").write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    _, out, _ = stabdiag("scan", "net.py", "-f", "github")
    assert out.startswith("::error file=")
    assert (tmp_path / "summary.md").read_text().startswith("before\n### models/net.py:Net")
    stabdiag("scan", "net.py", "-f", "concise")
    assert (tmp_path / "summary.md").read_text().count("### ") == 1
