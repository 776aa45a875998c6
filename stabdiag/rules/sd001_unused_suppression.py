"""A suppression comment or baseline entry that matches nothing.

## What it does
Reports a `# stabdiag: ignore[…]` comment that silences no finding, one that names no known rule, one that names no rule
at all, and a baseline entry whose finding no longer occurs. A comment is judged only when the class or function it
stands in was run by the scan and the rule it names was on.

## Why it matters
What silences nothing today silences the next defect of the same kind at the same place, and nobody will have looked.

## Bad
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(x)  # stabdiag: ignore[SD301] checked in May  # expect: SD001
```

## Good
```python
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(x)
```

## What it does not detect
Comments in files of which no line was run, and whether the reason given is still true.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.finding import Finding, Severity
from stabdiag.rule import rule_in
from stabdiag.trace import Location, Trace

KIND = "scan"
LEVEL = "line"


def check(trace: Trace) -> Iterator[Finding]:
    """Nothing: a trace knows neither comments nor baselines. `unused` is called where they are applied."""
    return iter(())


def unused(message: str, help: str, path: str, location: Location | None = None) -> Finding:
    """The finding that a comment or a baseline entry is of no use."""
    return rule_in(__name__).finding(
        Severity.WARNING,
        message,
        location=location,
        notes=[f"help: {help}"],
        path=path,
        acceptable=False,
    )
