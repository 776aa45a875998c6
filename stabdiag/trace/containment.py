"""A fault of ours in one part must not cost the author what the other parts found: it is contained, and reported as unseen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stabdiag.trace import Trace

STRICT = False
"""Tests set it: there a fault is raised."""


@contextmanager
def contained(trace: Trace, name: str, kind: str) -> Iterator[None]:
    """Turn an exception of a rule or experiment into a line of `trace.unseen`."""
    try:
        yield
    except Exception as error:
        if STRICT:
            raise
        said = " ".join(str(error).split())[:200]
        trace.unseen.append(f"the {kind} {name} failed ({type(error).__name__}: {said}): what it looks for is not judged")
