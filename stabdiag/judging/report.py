"""The Report: what a scan concluded, ready to be rendered. Formats live in `stabdiag/reports/`, one file each.

`to_json` and `from_json` are the schema `stabdiag/v1`: a frozen copy of these classes, never a dump of internal types.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stabdiag.errors import ScanError
from stabdiag.evidence.graph.structure import Weight
from stabdiag.evidence.signal.depth import END
from stabdiag.finding import Finding, Severity
from stabdiag.judging.operands import Operand
from stabdiag.trace import Location, SubjectFacts

SCHEMA = "stabdiag/v1"
VERDICTS = ("safe", "safe-with-scaling", "at-risk", "fails", "not-run")


@dataclass(slots=True)
class PrecisionVerdict:
    """Can this model be trained in this precision?

    Attributes:
        name: one of `stabdiag.trace.formats.PRECISIONS`, or an FP8 format that was predicted only.
        verdict: one of VERDICTS; reason: why, one clause; where: "path:line" of the first place in the way.
        output_error, gradient_error: relative L2 distance to the reference run; None when not compared.
        headroom_bits: bits between the largest forward magnitude and the format's maximum.
        gradient_underflow: share of non-zero parameter gradient elements that flush to 0 unscaled.
        loss_scale: the recommended power of two, None where scaling is pointless.
        mode: "native", "emulated" or "predicted" (from the reference run, not executed).
    """

    name: str
    verdict: str
    reason: str = ""
    where: str = ""
    output_error: float | None = None
    gradient_error: float | None = None
    gradient_projection: float | None = None
    headroom_bits: float | None = None
    gradient_underflow: float | None = None
    loss_scale: float | None = None
    mode: str = "native"
    predicted: str = ""
    float32_islands: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Layer:
    """One row of the layer picture: a value on the way from input to loss.

    `forward_rms` and `gradient_rms` are root mean squares; the gains are per block, relative to the row before (forward) and
    after (gradient). `main` is False for values inside a residual branch. None where not measured.
    """

    module: str
    op: str
    path: str
    line: int
    main: bool
    forward_rms: float | None
    gradient_rms: float | None
    forward_gain: float | None = None
    gradient_gain: float | None = None


@dataclass(slots=True)
class OpRow:
    """One row of `--layers FILE.csv`: one op in one precision and phase. `exponents`: floor(log2|x|) -> how many values of the
    sample, for the page."""

    index: int
    precision: str
    phase: str
    module: str
    op: str
    path: str
    line: int
    shape: str
    dtype: str
    rms: float | None
    min: float | None
    max: float | None
    max_abs: float | None
    zeros: float | None
    nonfinite: int | None
    headroom_bits: float | None
    gradient_rms: float | None
    gradient_max_abs: float | None
    error: float | None
    exponents: dict[int, int] = field(default_factory=dict, repr=False)


@dataclass(slots=True)
class Replayed:
    """A state in which the original broke, run again.

    Attributes:
        broken: what is not finite in it, "" where all is; path, line: of the op that made it so, "" and 0 where unknown.
    """

    broken: str
    path: str = ""
    line: int = 0

    @property
    def place(self) -> tuple[str, int]:
        """Where it begins."""
        return self.path, self.line


@dataclass(slots=True)
class Samples:
    """What the reference run computed, to tell whether an edited model computes the same.

    Attributes:
        precision: of the run: float64, or float32 where that does not run.
        outputs: up to 2,048 values of each output at fixed positions; loss: None where there was none.
        gradients: parameter name -> up to 64 values of its gradient at fixed positions; norms: parameter name -> its L2 norm.
    """

    outputs: list[list[float]] = field(default_factory=list)
    loss: float | None = None
    gradients: dict[str, list[float]] = field(default_factory=dict)
    norms: dict[str, float] = field(default_factory=dict)
    precision: str = "float64"


@dataclass(slots=True)
class SubjectReport:
    """All about one scanned model: one element of `runs` in the JSON report.

    What only fixes read, and no report shows:
        samples: what the reference run computed.
        ran: precisions that ran to the end, the reference among them.
        weights, modules, operands, batch_size: what remedies choose their edits by; initialised: parameter name -> where its
            content was last written.
        descent: losses of the steps of `ScanRequest.descent`; replayed: what became of each of `ScanRequest.states`.
    """

    subject: SubjectFacts
    precisions: list[PrecisionVerdict] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    coverage: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    error: ScanError | None = None
    rules_run: list[str] = field(default_factory=list)
    op_rows: list[OpRow] = field(default_factory=list, repr=False)
    samples: Samples = field(default_factory=Samples, repr=False)
    weights: list[Weight] = field(default_factory=list, repr=False)
    modules: dict[str, str] = field(default_factory=dict, repr=False)
    initialised: dict[str, Location | None] = field(default_factory=dict, repr=False)
    ran: list[str] = field(default_factory=list, repr=False)
    operands: list[Operand] = field(default_factory=list, repr=False)
    batch_size: int | None = None
    descent: list[float] = field(default_factory=list, repr=False)
    replayed: list[Replayed] = field(default_factory=list, repr=False)

    @property
    def gradient_ratio(self) -> float | None:
        """Gradient at the first tenth of the main path over that at the last; None where either was not measured or is 0."""
        gradients = [layer.gradient_rms for layer in self.layers if layer.main and layer.gradient_rms is not None]
        ends = max(1, round(END * len(gradients)))
        first, last = sum(gradients[:ends]) / ends, sum(gradients[-ends:]) / ends
        return first / last if len(gradients) > 1 and first > 0 and last > 0 else None


@dataclass(slots=True)
class Report:
    """One run of the tool over one or more subjects."""

    version: str
    runs: list[SubjectReport] = field(default_factory=list)

    @property
    def findings(self) -> list[Finding]:
        """All findings of all subjects, suppressed and baselined ones included."""
        return [finding for run in self.runs for finding in run.findings]

    def exit_code(self, fail_on: str = "error") -> int:
        """0: nothing new at or above `fail_on` (a severity or "never"), by `Finding.weight`; 1: findings; 2: a scan did not
        happen."""
        if any(run.error for run in self.runs):
            return 2
        if fail_on == "never":
            return 0
        floor = Severity(fail_on).rank
        return int(any(f.status == "new" and f.weight.rank >= floor for f in self.findings))
