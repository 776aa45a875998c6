"""What one initialisation shows before training may be gone with another one, or after two steps: asked of every finding.

A rule judges the model as built and says in `Finding.still` how it would judge one other run. This is where those runs are
chosen and the answers are weighed, for all rules alike:

- asked are the float32 runs of other seeds and the one after the first optimizer steps (the two-time test), unless they broke;
- a finding that is gone in one of them was an accident of the seed, or is mended by training itself: it is dropped, or lowered
  to `Finding.fades` where the rule has something to say about it all the same;
- where it is still there, it is as bad as where it is mildest;
- a run that cannot tell (nothing was measured there, or it is not finite) is no evidence for either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stabdiag.finding import Finding
from stabdiag.trace import Run, Trace


def rechecks(trace: Trace) -> list[Run]:
    """The runs in which a finding about the model as built must show again."""
    first = min((run.step for run in trace.runs if run.step), default=0)
    others = (run for run in trace.runs if run.precision == "float32" and run.error is None)
    return [run for run in others if (run.seed and not run.step) or (run.step == first and first and not run.seed)]


def persistent(findings: Iterable[Finding], trace: Trace) -> Iterator[Finding]:
    """Findings that are still there in every run that can tell, as severe as in the one where they are mildest."""
    runs = rechecks(trace)
    for finding in findings:
        answers = [finding.still(run) for run in runs] if finding.still is not None else []
        if False in answers:
            if finding.fades is None:
                continue
            finding.severity = finding.fades
        else:
            known = [answer for answer in answers if answer]
            finding.severity = min((finding.severity, *known), key=lambda severity: severity.rank)
        yield finding
