"""The gate in the life of a repository, with real scans: what a change does to the exit code and the annotations."""

import json
import os
import subprocess
import sys

import pytest

CLEAN = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(8, 32)
        self.down = nn.Linear(32, 1)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(64, 8, generator=torch.Generator().manual_seed(1)),)


def loss(output):
    return (output - 1).square().mean()
"""
BROKEN = CLEAN.replace("        self.down =", "        nn.init.constant_(self.up.bias, -10.0)\n        self.down =")
REFORMATTED = '"""A model."""\n\n\n' + BROKEN.replace(
    "        nn.init.constant_(self.up.bias, -10.0)\n",
    "        nn.init.constant_(\n            self.up.bias,\n            -10.0,\n        )\n",
)
PROJECT = '[tool.stabdiag]\nmodels = ["src/my net.py"]\nprecisions = ["float32", "bfloat16"]\nselect = ["SD0", "SD201"]\n'


@pytest.fixture
def repository(tmp_path):
    """A git repository with one configured model; `commit(source)` and `scan(*options)` work in it."""
    (tmp_path / "src").mkdir()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GITHUB_")}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}

    class Repository:
        path = tmp_path

        def git(self, *arguments):
            identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
            subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

        def commit(self, source):
            (tmp_path / "src" / "my net.py").write_text(source)
            self.git("add", "-A")
            self.git("commit", "-m", "change")

        def scan(self, *options):
            command = [sys.executable, "-m", "stabdiag", "scan", *options]
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
            return done.returncode, done.stdout, done.stderr

    made = Repository()
    made.git("init", "-q")
    return made


@pytest.mark.long
def test_from_a_clean_model_over_an_accepted_defect_to_its_repair(repository):
    baseline = ("--baseline", "stabdiag-baseline.json")
    repository.commit(CLEAN)
    assert repository.scan()[0] == 0

    repository.commit(BROKEN)
    line = BROKEN.splitlines().index("        nn.init.constant_(self.up.bias, -10.0)") + 1
    code, out, _ = repository.scan("-f", "github")
    assert code == 1
    assert out.startswith(f"::error file=src/my net.py,line={line},") and "title=SD201 dead-relu" in out

    assert repository.scan("--write-baseline", "stabdiag-baseline.json")[0] == 0
    code, out, _ = repository.scan(*baseline)
    assert code == 0 and "1 baselined" in out

    repository.commit(REFORMATTED)
    code, out, _ = repository.scan(*baseline)
    assert code == 0 and "1 baselined" in out and "SD001" not in out

    repository.commit(CLEAN)
    code, out, _ = repository.scan(*baseline)
    assert code == 0 and "warning[SD001]" in out and "accepted SD201" in out


@pytest.mark.long
def test_two_scans_give_the_same_bytes_in_every_format(repository):
    repository.commit(BROKEN)
    names = [f"report{suffix}" for suffix in (".json", ".txt", ".log", ".csv", ".sarif", ".xml", ".md", ".html")]
    options = [option for name in names for option in ("-o", name)] + [
        "--layers",
        "layers.csv",
        "--write-baseline",
        "base.json",
    ]
    names += ["layers.csv", "base.json"]
    before = repository.scan("-f", "github", *options)[1], [(repository.path / name).read_bytes() for name in names]
    after = repository.scan("-f", "github", *options)[1], [(repository.path / name).read_bytes() for name in names]
    assert before == after
    assert json.loads(before[1][0])["runs"][0]["findings"]


@pytest.mark.long
def test_a_comment_at_the_line_silences_it(repository):
    commented = BROKEN.replace("-10.0)", "-10.0)  # stabdiag: ignore[SD201] on purpose")
    repository.commit(commented)
    code, out, _ = repository.scan()
    assert code == 0 and "1 suppressed" in out and "SD001" not in out
    repository.commit(commented.replace("-10.0)", "0.0)"))
    code, out, _ = repository.scan()
    assert code == 0 and "warning[SD001]" in out
