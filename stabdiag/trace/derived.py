"""What is worked out once from a recorded run or a whole trace and kept with it: never written to a file, never compared."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from stabdiag.trace.run import Run
from stabdiag.trace.trace import Trace

Of = TypeVar("Of", Run, Trace)
Result = TypeVar("Result")


def derived(function: Callable[[Of], Result]) -> Callable[[Of], Result]:
    """A function of a run or a trace that is computed once, and anew when ops or runs were added since."""

    @wraps(function)
    def once(of: Of) -> Result:
        size = len(of.ops) if isinstance(of, Run) else len(of.runs)
        known = of.derived.get(function)
        if known is None or known[0] != size:
            known = of.derived[function] = (size, function(of))
        result: Result = known[1]
        return result

    return once
