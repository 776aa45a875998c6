"""The smallest set of lines that must stay in float32 for the rest to run safely in 16 bits, found by search, confirmed by
running.

Grown from the cause: the line of the first op that overflows, makes NaN or makes the error is put into float32 and the model
run again, until the run is sound; then each line is left out in turn, and stays out where the run stays sound. Every run is a
recorded step in the precision. Given up after `MOST` runs, and where float32 itself is not sound.

Writes `trace.experiments.islands`: precision -> ["path:line", …]; nothing where no set was found.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

from stabdiag.evidence.numbers.blame import LIMIT, blame
from stabdiag.evidence.numbers.descent import DESCENDS
from stabdiag.evidence.numbers.poison import harmful
from stabdiag.probe.float32_lines import Float32Lines, Line
from stabdiag.probe.recorder import Recorder
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Op, Run, Trace

BACK = 4  # ops to go back from a cause that is in float32 already, to what made its operands
MOST = 10  # recorded steps per precision
COST = 2.0  # bare training steps each, as `plan._COST`


def run(recorder: Recorder, trace: Trace, request: ScanRequest, progress: Callable[[str, float], None]) -> None:
    """Search for every 16-bit precision that is not sound where float32 is."""
    base = trace.run("float32")
    if base is None or not sound(trace, base):
        return
    found: dict[str, list[str]] = {}
    for before in list(trace.runs):
        if before.precision in ("float64", "float32") or before.step or before.seed or sound(trace, before):
            continue
        progress(f"float32 islands in {before.precision}", 0.99)
        search = Search(recorder, trace, before)
        lines = search.grow()
        if lines is not None:
            found[before.precision] = [f"{path}:{line}" for path, line in sorted(search.shrink(lines))]
        trace.spent["float32 islands"] = trace.spent.get("float32 islands", 0.0) + COST * search.runs
    if found:
        trace.experiments.islands = found


def sound(trace: Trace, run: Run) -> bool:
    """Whether a run is finite and close enough to the reference to be trained in."""
    if run.error is not None or run.loss is None or not isfinite(run.loss) or harmful(run):
        return False
    lost = run.gradient_projection is not None and run.gradient_projection < DESCENDS
    return not lost and blame(trace, run, LIMIT) is None


class Search:
    """Growing and shrinking a set of lines for one precision; `runs` counts what was spent."""

    def __init__(self, recorder: Recorder, trace: Trace, before: Run) -> None:
        self.recorder, self.trace, self.before, self.runs = recorder, trace, before, 0

    def grow(self) -> set[Line] | None:
        """Add the line that is in the way until nothing is; None when that does not end."""
        lines: set[Line] = set()
        now = self.before
        while not sound(self.trace, now):
            added = self._in_the_way(now, lines)
            if added is None or self.runs >= MOST:
                return None
            lines.add(added)
            now = self._try(lines)
        return lines

    def shrink(self, lines: set[Line]) -> set[Line]:
        """Leave out what is not needed."""
        for line in sorted(lines):
            if len(lines) > 1 and self.runs < MOST and sound(self.trace, self._try(lines - {line})):
                lines = lines - {line}
        return lines

    def _try(self, lines: set[Line]) -> Run:
        self.runs += 1
        recorder = self.recorder
        originals = {name: buffer.detach().clone() for name, buffer in recorder.subject.model.named_buffers()}
        with recorder.stage(self.before.precision) as stage:
            wide = {id(b): originals[name].to(stage.device) for name, b in stage.model.named_buffers()}
            mode = Float32Lines(lines, stage.precision.compute, wide)
            return recorder.record(stage, against=recorder.reference, scale=self.before.loss_scale, measure=False, within=mode)

    def _in_the_way(self, now: Run, lines: set[Line]) -> Line | None:
        """The line of the first op to blame, or of what made its operands, that is not in the set yet."""
        for run in (now, self.before):
            for op in _causes(self.trace, run):
                edge = [op]
                for _ in range(BACK):
                    line = next((at for o in edge if (at := _line(o)) is not None and at not in lines), None)
                    if line is not None:
                        return line
                    edge = [p for o in edge for v in o.inputs if (p := run.producer(run.behind_views(v))) is not None]
        return None


def _causes(trace: Trace, run: Run) -> list[Op]:
    births = harmful(run)
    blamed = None if births else blame(trace, run, LIMIT)
    ops = [birth.op for birth in births[:1]] + ([blamed.op] if blamed is not None else [])
    return [run.ops[op.forward] if op.forward is not None else op for op in ops]


def _line(op: Op) -> Line | None:
    return (op.location.path, op.location.line) if op.location is not None else None
