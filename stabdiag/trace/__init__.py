"""The Trace: everything a probe measured, in plain numbers.

This is the border. Before it lives what imports torch and runs the user's code; behind it nothing does. A Trace is made of
dataclasses of numbers, strings, lists and dicts, so it can be written to a file and judged again later
(`stabdiag.trace.file`). The Trace of one scan holds one `Run` per precision, seed and training step that was probed.
"""

from stabdiag.trace.ops import DISCRETE
from stabdiag.trace.run import Location, Op, Parameter, Raised, Run, Value
from stabdiag.trace.stats import Stats, merged
from stabdiag.trace.trace import NotRun, SubjectFacts, Trace

__all__ = [
    "DISCRETE",
    "Location",
    "NotRun",
    "Op",
    "Parameter",
    "Raised",
    "Run",
    "Stats",
    "SubjectFacts",
    "Trace",
    "Value",
    "merged",
]
