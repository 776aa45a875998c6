"""Scalars reach loggers by what they can do."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from stabdiag.integrations.loggers import log_to


def test_every_kind_of_logger() -> None:
    said = []
    board = SimpleNamespace(add_scalar=lambda name, value, step: said.append((name, value, step)))
    framework = SimpleNamespace(log_metrics=lambda scalars, step: said.append((scalars, step)))
    run = SimpleNamespace(log=lambda scalars, commit: said.append((scalars, commit)))
    log_to(board, framework, run, lambda step, scalars: said.append((step, scalars)))(200, {"headroom/a": 3.0})
    assert said == [
        ("stabdiag/headroom/a", 3.0, 200),
        ({"stabdiag/headroom/a": 3.0}, 200),
        ({"stabdiag/headroom/a": 3.0, "stabdiag/step": 200}, False),
        (200, {"stabdiag/headroom/a": 3.0}),
    ]


def test_runs_that_were_started_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    run = SimpleNamespace(log=lambda scalars, commit: said.append(scalars))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None))
    log = log_to()
    log(1, {"loss": 1.0})
    sys.modules["wandb"].run = run
    log(2, {"loss": 1.0})
    assert said == [{"stabdiag/loss": 1.0, "stabdiag/step": 2}]


def test_what_is_no_logger_is_said() -> None:
    with pytest.raises(TypeError, match="int is no logger"):
        log_to(3)
