"""Part of the model that the scan could not look into.

## What it does
Names compiled regions and custom kernels that were run as one opaque op, modules that the probe batches never called, and
parameters that took no part in the forward pass.

## Why it matters
Silence about a part of a model is no verdict on it. A mixture of experts whose third expert got no token is not known to be
healthy, and a parameter that never reaches the loss is trained by weight decay alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.finding import Finding, Severity
from stabdiag.trace import Trace

KIND = "scan"
LEVEL = "model"


def check(trace: Trace) -> Iterator[Finding]:
    """One finding per kind of unseen region."""
    for what in trace.unseen:
        yield Finding(Severity.INFO, what)
