"""Experiments: probes beyond recorded steps, run when the recorded ones give a reason to.

An experiment is one file with `run(recorder, trace, request, progress) -> None`. It decides from the trace whether it has
anything to do, leaves the model as found, and writes plain data to `trace.experiments.<its name>`. They run in the order of
their file names' listing.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

Experiment = Callable[..., None]


def experiments() -> list[Experiment]:
    """Every experiment, in order of name."""
    found: list[Any] = [
        importlib.import_module(f"{__name__}.{info.name}")
        for info in pkgutil.iter_modules(__path__)
        if not info.name.startswith("_")
    ]
    return [module.run for module in found]
