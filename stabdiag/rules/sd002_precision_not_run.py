"""A precision that was asked for could not be probed.

## What it does
Gives the reason for every requested precision that did not run: a missing kernel, no memory, an exception of the model's own
code.

## Why it matters
No verdict is not a good verdict. A model that raises in bfloat16 is told so, with the line where another rule found the
reason.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.finding import Finding, Severity
from stabdiag.trace import Trace

KIND = "scan"
LEVEL = "model"
REMEDIES = ("dtype-minimum", "integer-positions")


def check(trace: Trace) -> Iterator[Finding]:
    """One finding per precision, at the last op before it broke."""
    for missing in trace.not_run:
        run = trace.run(missing.precision)
        last = run.ops[-1] if run is not None and run.ops else None
        yield Finding(
            Severity.INFO,
            f"{missing.precision} did not run: {missing.reason}",
            precisions=[missing.precision],
            location=trace.place(last) if last is not None else None,
            label="the last op before it broke" if last is not None else "",
        )
