"""One verdict per precision: can this model be trained in it, and if not, which line is in the way.

Measured where the precision ran, predicted from the reference run everywhere. A worse prediction is told with its reason; a
better one is not, since it reads ranges and condition numbers, and most of what breaks is neither. FP8 is predicted
only, with per-tensor scaling: the inputs of every matrix product divided by their largest magnitude.
"""

from __future__ import annotations

from math import inf, isfinite, log2

from stabdiag.evidence.numbers.descent import Outcome, descent_of
from stabdiag.evidence.numbers.loss_scale import LOST_WORTH_SCALING, parameter_gradients, recommended_scale
from stabdiag.evidence.numbers.poison import harmful, overflowed
from stabdiag.evidence.numbers.prediction import AUTOCAST_NARROW, headroom, overflowing_counts, overflows
from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import PrecisionVerdict
from stabdiag.rule import rule_of
from stabdiag.trace import Run, Trace
from stabdiag.trace.counterpart import Counterparts, reference_of
from stabdiag.trace.formats import Format, format_of

EXPECTED_AT_RISK = 1.0  # expected error of the outputs, relative to their spread between samples: all that tells them apart
FLUSHED_AT_RISK = 0.2  # share of an operand that FP8 loses beside its largest element; healthy weights lose 0.02
TYPICAL_INDEX = 0.7  # error over the unavoidable one: median of 31 healthy architectures in float16 (bfloat16 0.67)
_OF_OUTCOME = {
    Outcome.DESCENDS: "safe",
    Outcome.ROUGH: "safe",
    Outcome.NOISY: "at-risk",
    Outcome.LOST: "fails",
}
RANK = {"safe": 0, "safe-with-scaling": 1, "at-risk": 2, "fails": 3, "not-run": 0}


def verdicts(trace: Trace, findings: list[Finding], asked: list[str]) -> list[PrecisionVerdict]:
    """Verdicts in the order asked for."""
    return [_verdict(trace, name, findings) for name in asked]


def _verdict(trace: Trace, name: str, findings: list[Finding]) -> PrecisionVerdict:
    foreseen = predict(trace, name)
    run = trace.run(name)
    if name.startswith("float8"):
        return foreseen
    if run is None or run.error is not None:
        reason = next((n.reason for n in trace.not_run if n.precision == name), run.error if run else None)
        missing = PrecisionVerdict(name, "not-run", reason or "the scan ended before it", mode="", predicted=foreseen.verdict)
        in_the_way = [finding for finding in findings if finding.severity_in(name) in (Severity.ERROR, Severity.WARNING)]
        if run is not None and _blame(missing, in_the_way):
            missing.mode = run.mode
            missing.reason = f"{missing.reason}: {run.error}"
        return missing
    verdict = PrecisionVerdict(
        name,
        "safe",
        output_error=run.output_error,
        gradient_error=run.gradient_error,
        gradient_projection=run.gradient_projection,
        headroom_bits=_bits(trace, run, name),
        mode=run.mode,
        predicted=foreseen.verdict,
        float32_islands=trace.experiments.islands.get(name, []),
    )
    _measured(verdict, run, trace)
    _blame(verdict, findings)
    _scaling(trace, verdict, run.loss_scale, format_of(name))
    if foreseen.verdict and RANK[foreseen.verdict] > RANK[verdict.verdict]:
        _add(verdict, f"predicted {foreseen.verdict}" + (f" ({foreseen.reason})" if foreseen.reason else ""))
    return verdict


def _add(verdict: PrecisionVerdict, reason: str) -> None:
    verdict.reason = f"{verdict.reason}; {reason}".lstrip("; ")


def _blame(verdict: PrecisionVerdict, findings: list[Finding]) -> bool:
    """Let the worst finding decide unless the numbers are worse, of several the first that names a line; True if there is one.

    An error that blocks the precision fails it. A warning that does puts it at risk, and so does any other error that shows in
    it: a network of dead units or a logarithm that comes near 0 can be trained in no precision without a second look.
    Information leaves the verdict to the numbers.
    """
    blocking = [finding.severity_in(verdict.name) for finding in findings]
    others = [f.severity is Severity.ERROR and verdict.name in f.precisions and not rule_of(f).blocks for f in findings]
    fatal = [severity is Severity.ERROR for severity in blocking]
    risky = [severity is Severity.WARNING or other for severity, other in zip(blocking, others, strict=True)]
    noted = [severity is Severity.INFO for severity in blocking]
    for decides, outcome in ((fatal, "fails"), (risky, "at-risk"), (noted, "safe")):
        worst = [finding for finding, does in zip(findings, decides, strict=True) if does]
        if worst:
            blamed = next((f for f in worst if f.location is not None), worst[0])
            if RANK[outcome] >= max(1, RANK[verdict.verdict]):
                verdict.verdict, verdict.reason = outcome, f"{blamed.code} {blamed.name}"
            if blamed.location is not None:
                verdict.where = f"{blamed.location.path}:{blamed.location.line}"
            return True
    return False


def _measured(verdict: PrecisionVerdict, run: Run, trace: Trace) -> None:
    """What the numbers say where no rule has a finding."""
    gradient = run.nonfinite_gradient
    broken = "the loss" if run.loss is None or not isfinite(run.loss) else gradient and f"the gradient of {gradient}"
    if broken:
        born = next((trace.place(birth.op) for birth in harmful(run)), None)
        verdict.verdict, verdict.reason = "fails", f"{broken} is not finite"
        verdict.where = f"{born.path}:{born.line}" if born is not None else ""
        return
    descent = descent_of(trace, run)
    if descent is None:
        return
    verdict.verdict, verdict.reason = _OF_OUTCOME[descent.outcome], descent.told
    if descent.outcome is Outcome.LOST:
        verdict.where = _where_gradients_go(run, trace)


def _where_gradients_go(run: Run, trace: Trace) -> str:
    """The first op of the backward pass whose result is all wrong."""
    for op in run.phase("backward"):
        value = run.output_of(op)
        source = run.ops[op.forward] if op.forward is not None else None
        if value is not None and value.error is not None and 0.5 < value.error <= 1.0 and source is not None:
            at = trace.place(source)
            return f"{at.path}:{at.line}" if at is not None else ""
    return ""


def _bits(trace: Trace, run: Run, name: str) -> float | None:
    """Headroom of a run in bits; negative where values overflow, None where they do and their true size is not known."""
    reference, format = reference_of(trace), format_of(name)
    there = Counterparts(run, reference) if reference is not None else None
    tightest = headroom(run, name)
    bits = tightest[0] if tightest is not None else None
    for birth in harmful(run):
        if birth.op.phase == "backward" or birth.value.stats is None or birth.value.stats.nan:
            continue
        largest = overflowed(run, birth, there, format)
        if largest is None:
            return None
        bits = min(inf if bits is None else bits, log2(format.max / largest))
    return bits


def _scaling(trace: Trace, verdict: PrecisionVerdict, scale: float, format: Format) -> None:
    base = trace.base
    gradients = parameter_gradients(base) if base is not None and format.name == "float16" else None
    if gradients is None:
        return
    lost = gradients.underflow(format)
    verdict.gradient_underflow = lost if isfinite(lost) else None
    if isfinite(lost) and lost > LOST_WORTH_SCALING:
        verdict.loss_scale = scale
        if verdict.verdict == "safe":
            verdict.verdict = "safe-with-scaling"
            _add(verdict, f"{lost:.0%} of the gradients flush to 0 unscaled")


def predict(trace: Trace, name: str) -> PrecisionVerdict:
    """What the reference run alone says about a precision; the verdict is "" when there is none to read.

    Overflow: `stabdiag.evidence.numbers.prediction.overflows`. Accuracy: TYPICAL_INDEX · u · max(1, κ), κ for rounding.
    Gradients in float16: the share that flushes to 0 unscaled, and the recommended scale.
    """
    reference = reference_of(trace)
    if reference is None:
        return PrecisionVerdict(name, "not-run" if name.startswith("float8") else "", "no reference run", mode="predicted")
    verdict = PrecisionVerdict(name, "safe", mode="predicted")
    format = format_of(name)
    if reference.loss is None or not isfinite(reference.loss):
        verdict.verdict, verdict.reason = "fails", "the loss is not finite in the reference either"
        return verdict
    if reference.nonfinite_gradient is not None:
        verdict.verdict, verdict.reason = "fails", "gradients are not finite in the reference either"
        return verdict
    rounding = trace.experiments.conditioning.get("rounding")
    kappa = rounding.output if rounding is not None else None
    error = None if kappa is None else TYPICAL_INDEX * format.unit_roundoff * max(1.0, kappa)
    if name.startswith("float8"):
        _fp8(verdict, reference, format)
    elif beyond := overflows(reference, name):
        op, largest = beyond[0]
        at = trace.place(op)
        verdict.verdict, verdict.reason = "fails", f"`{op.name}` reaches {largest:.3g}"
        verdict.where = f"{at.path}:{at.line}" if at is not None else ""
    elif counted := overflowing_counts(reference, name):
        op, count = counted[0]
        at = trace.place(op)
        verdict.verdict, verdict.reason = (
            "fails",
            f"the {count:,} elements that `{op.name}` averages are inf as a {format.name}",
        )
        verdict.where = f"{at.path}:{at.line}" if at is not None else ""
    else:
        tightest = headroom(reference, name)
        verdict.headroom_bits = tightest[0] if tightest is not None else None
    if error is not None and verdict.verdict != "fails":
        verdict.output_error = error
        if error > EXPECTED_AT_RISK:
            verdict.verdict = "at-risk"
            verdict.reason = f"an error of {error:.2g} is expected (κ = {kappa:.3g})"
    _scaling(trace, verdict, recommended_scale(trace, name), format)
    return verdict


def _fp8(verdict: PrecisionVerdict, reference: Run, format: Format) -> None:
    """Per-tensor scaling puts the largest element at the format's maximum: only what is too small beside it is lost."""
    verdict.verdict, verdict.reason = "safe-with-scaling", "per-tensor scaling"
    span = format.smallest / 2 / format.max
    worst, site = 0.0, ""
    for op in reference.phase("forward", "loss"):
        for value in reference.inputs_of(op) if op.name in AUTOCAST_NARROW else ():
            stats = value.stats
            floor = 2.0 ** round(_log2(stats.max_abs * span)) if stats is not None else 0.0
            share = stats.below(floor) if stats is not None and floor else 0.0
            if isfinite(share) and share > worst:
                worst, site = share, op.layer or op.module
    if worst > FLUSHED_AT_RISK:
        verdict.verdict, verdict.reason = (
            "at-risk",
            f"{worst:.0%} of an input of `{site}` is too small beside its largest element",
        )


def _log2(value: float) -> float:
    return log2(value) if value > 0 else -1070.0
