"""stabdiag: finds where the numbers of a PyTorch model go wrong, before training does."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stabdiag.api import scan
    from stabdiag.finding import Finding, Severity
    from stabdiag.judging.report import Report
    from stabdiag.live.watch import watch

__version__ = "0.1.0"
__all__ = ["Finding", "Report", "Severity", "__version__", "scan", "watch"]

_HOMES = {"Finding": "finding", "Report": "judging.report", "Severity": "finding", "scan": "api", "watch": "live.watch"}


def __getattr__(name: str) -> Any:
    """Names of the API, imported when they are first asked for: `import stabdiag` loads neither torch nor pandas."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"stabdiag.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'stabdiag' has no attribute {name!r}")
