import os
import sys
from types import SimpleNamespace

# One thread for each of pytest's workers, and for what they start: threads that share cores wait for each other. On two cores
# the suite takes 2 minutes this way and 8 with torch's own choice.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from tests.reports import sample_report

# The same examples on every run: a gate that fails by chance teaches people to press the button again.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _faults_are_raised(monkeypatch):
    """In tests a rule or experiment that fails fails the test."""
    monkeypatch.setattr("stabdiag.trace.containment.STRICT", True)


@pytest.fixture
def scanned(monkeypatch):
    """Replace the scan itself by hand-made reports, by target; `scanned.requests` holds what was asked for."""
    makers = {"net.py": sample_report.sick, "ok.py": sample_report.healthy, "missing.py": sample_report.broken}
    requests = []

    def scan(request, progress=None):
        requests.append(request)
        if progress:
            progress("judge", 1.0)
        return makers[request.target.rpartition("/")[2].partition(":")[0]]()

    monkeypatch.setitem(sys.modules, "stabdiag.scanning.pipeline", SimpleNamespace(scan=scan))
    return SimpleNamespace(requests=requests, makers=makers)


@pytest.fixture
def stabdiag(capsys, tmp_path, monkeypatch):
    """Run a command line in an empty folder: `code, stdout, stderr = stabdiag("scan", "net.py")`."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        from stabdiag.commands.application import run

        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
