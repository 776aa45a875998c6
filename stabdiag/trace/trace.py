"""The Trace: everything a scan measured about one subject."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stabdiag.trace.experiments import Experiments
from stabdiag.trace.run import Location, Op, Run


@dataclass(slots=True)
class SubjectFacts:
    """What was scanned, and how it was found.

    `how` answers for "model", "inputs" and "objective": what was chosen and why. `declared` lists which of "inputs", "loss",
    "optimizer" came from the author; claims about data or targets may only stand on what is declared. `training` holds the
    settings that the file declares (`stabdiag.subject.declared`), `stored` the dtypes of the weights as the author built them.
    `unrun` is the file's own loss and its line, where another one was guessed; "" where the file's own was run, or it has none.
    """

    path: str
    name: str
    parameters: int
    inputs: str
    objective: str
    how: dict[str, str] = field(default_factory=dict)
    declared: list[str] = field(default_factory=list)
    rebuildable: bool = False
    training: dict[str, Any] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    unrun: str = ""


@dataclass(slots=True)
class NotRun:
    """A precision that could not be probed, and why, in one sentence."""

    precision: str
    reason: str


@dataclass
class Trace:
    """All that one scan measured.

    `experiments` holds what further probes found; `modules` says where in the
    user's files each module was constructed, by module path, `data` where what a model input holds was made, by input name.
    `derived`: what was worked out from it, see `stabdiag.trace.derived`.
    """

    subject: SubjectFacts
    runs: list[Run] = field(default_factory=list)
    not_run: list[NotRun] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)
    experiments: Experiments = field(default_factory=Experiments)
    modules: dict[str, Location | None] = field(default_factory=dict)
    data: dict[str, Location | None] = field(default_factory=dict)
    derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def run(self, precision: str, *, seed: int = 0, step: int = 0) -> Run | None:
        """The run of a precision, None when it was not probed."""
        for run in self.runs:
            if (run.precision, run.seed, run.step) == (precision, seed, step):
                return run
        return None

    def seeds(self, precision: str = "float32", step: int = 0) -> list[Run]:
        """All runs of a precision at a step, one per seed."""
        return [run for run in self.runs if (run.precision, run.step) == (precision, step)]

    @property
    def base(self) -> Run | None:
        """The run that value-independent facts are read from: float32, else the most precise one that ran."""
        for precision in ("float32", "float64", "amp-bfloat16", "bfloat16", "amp-float16", "float16"):
            if (run := self.run(precision)) is not None and run.ops:
                return run
        return None

    @property
    def precisions(self) -> list[str]:
        """Probed precisions that belong in the report, without the float64 reference unless it is all there is."""
        return list(dict.fromkeys(run.precision for run in self.runs if run.step == 0))

    def place(self, op: Op) -> Location | None:
        """Where an author would look: the line that ran the op, else the line that constructed its layer or module."""
        if op.location is not None:
            return op.location
        return self.modules.get(op.layer) or self.modules.get(op.module)
