import os
import subprocess
import sys

import pytest

CONFTEST = """
import sys
from types import SimpleNamespace
sys.path[:0] = {path!r}
from tests.reports.sample_report import sick, healthy, broken

def scan(request, progress=None):
    return {{"net.py": sick, "ok.py": healthy, "missing.py": broken}}[request.target]()

sys.modules["stabdiag.scanning.pipeline"] = SimpleNamespace(scan=scan)
"""


@pytest.fixture
def pytest_run(tmp_path):
    """Run pytest in a project with configured models, whose scans are replaced by hand-made reports."""

    def run(models, *arguments):
        (tmp_path / "pyproject.toml").write_text(f"[tool.stabdiag]\nprecisions = ['float32', 'bfloat16']\nmodels = {models}\n")
        (tmp_path / "conftest.py").write_text(CONFTEST.format(path=sys.path))
        (tmp_path / "test_other.py").write_text("def test_other(): pass\n")
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
        command = [sys.executable, "-m", "pytest", "-p", "stabdiag.testing.plugin", "-p", "no:cacheprovider", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return run


def test_one_test_per_model_and_precision(pytest_run):
    code, out = pytest_run(["ok.py", "net.py"], "--stabdiag", "-v", "-rs")
    assert code == 1
    assert "stabdiag::ok.py::float32 PASSED" in out and "stabdiag::ok.py::bfloat16 PASSED" in out
    assert "stabdiag::net.py::float32 FAILED" in out and "stabdiag::net.py::bfloat16 SKIPPED" in out
    assert "this device has no bfloat16 kernel" in out
    assert "1 failed, 3 passed, 1 skipped" in out


def test_a_failure_is_the_report_and_no_traceback(pytest_run):
    _, out = pytest_run(["net.py"], "--stabdiag")
    assert "models/net.py:41:16: SD201 dead-relu: 61 of 64 units" in out
    assert "return F.relu(self.conv(x) + self.bias)" in out and "plugin.py" not in out


def test_tests_are_chosen_as_others_are(pytest_run):
    code, out = pytest_run(["ok.py", "net.py"], "--stabdiag", "-k", "ok and float32", "-v")
    assert code == 0 and "1 passed, 4 deselected" in out


def test_without_the_option_nothing_is_added(pytest_run):
    code, out = pytest_run(["net.py"])
    assert code == 0 and "1 passed" in out


@pytest.mark.parametrize(("models", "said"), [([], "nothing to scan"), ([3], "a model is 3")])
def test_a_wrong_configuration_is_one_sentence(pytest_run, models, said):
    code, out = pytest_run(models, "--stabdiag")
    assert code == 4 and f"ERROR: stabdiag: {'' if models else said}" in out and said in out


def test_the_plugin_loads_nothing_of_stabdiag_until_asked():
    code = (
        "import sys, pytest; import stabdiag.testing.plugin; "
        "print([m for m in sys.modules if m in ('torch', 'rich', 'pandas', 'numba') or m.startswith('stabdiag.')])"
    )
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "['stabdiag.testing', 'stabdiag.testing.plugin']\n"
