"""The files other systems read: the GitHub action and the pre-commit hook."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


@pytest.fixture
def action():
    return yaml.safe_load((ROOT / "action.yml").read_text())


def test_nothing_is_interpolated_into_the_shell(action):
    for step in action["runs"]["steps"]:
        assert "${{" not in step["run"] and step["shell"] == "bash"


def test_every_input_is_used_and_has_a_default(action):
    text = (ROOT / "action.yml").read_text()
    for name, about in action["inputs"].items():
        assert f"inputs.{name}" in text and "default" in about and about["description"]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ({}, ["scan", "--format", "github", "--"]),
        (
            {"INPUT_TARGETS": "src/a b.py:Net\n\n$(touch pwned).py\n", "INPUT_OPTIONS": "--baseline=base.json\n--jobs=2"},
            ["scan", "--format", "github", "--baseline=base.json", "--jobs=2", "--", "src/a b.py:Net", "$(touch pwned).py"],
        ),
        (
            {"INPUT_SARIF": 'x"; touch pwned; ".sarif', "INPUT_TARGETS": "--write-baseline=x"},
            ["scan", "--format", "github", '--output=x"; touch pwned; ".sarif', "--", "--write-baseline=x"],
        ),
    ],
)
def test_inputs_arrive_as_they_are(action, tmp_path, inputs, expected):
    fake = tmp_path / "bin" / "stabdiag"
    fake.parent.mkdir()
    fake.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\nsys.exit(1)\n")
    fake.chmod(0o755)
    empty = {"INPUT_TARGETS": "", "INPUT_OPTIONS": "", "INPUT_SARIF": "", "INPUT_REPORT": ""}
    environment = os.environ | empty | inputs | {"PATH": f"{fake.parent}:{os.environ['PATH']}"}
    script = action["runs"]["steps"][-1]["run"]
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, "the exit code is the gate's"
    assert json.loads(done.stdout) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin"]


def test_the_pre_commit_hook_is_a_command_line_that_we_have(stabdiag, scanned):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["pass_filenames"] is False
    program, *arguments = shlex.split(hook["entry"])
    assert program == "stabdiag"
    assert stabdiag(*arguments, "net.py")[0] == 1
