"""One verdict per precision: can this model be trained in it, and if not, which line is in the way.

Measured where the precision ran, predicted from the reference run everywhere; where the two differ the reason says so. FP8 is
predicted only, with per-tensor scaling: the inputs of every matrix product divided by their largest magnitude.
"""

from __future__ import annotations

from math import isfinite, log2

from stabdiag.evidence.numbers.loss_scale import LOST_WORTH_SCALING, parameter_gradients, recommended_scale
from stabdiag.evidence.numbers.prediction import AUTOCAST_NARROW, headroom, overflowing_counts, overflows
from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import PrecisionVerdict
from stabdiag.trace import Run, Trace
from stabdiag.trace.counterpart import reference_of
from stabdiag.trace.formats import Format, format_of

TYPICAL_INDEX = 0.7  # error over the unavoidable one: median of 31 healthy architectures in float16 (bfloat16 0.67)
ERROR_AT_RISK, ERROR_FAILS = 0.2, 0.5  # relative error of the outputs; healthy architectures reach 0.03 in bfloat16
COSINE_AT_RISK, COSINE_FAILS = 0.9, 0.5  # of the parameter gradients with the reference's; healthy ones reach 0.967


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
        if run is not None and _blame(missing, findings):
            missing.mode = run.mode
            missing.reason = f"{missing.reason}: {run.error}"
        return missing
    verdict = PrecisionVerdict(
        name,
        "safe",
        output_error=run.output_error,
        gradient_error=run.gradient_error,
        gradient_cosine=run.gradient_cosine,
        headroom_bits=_bits(run, name),
        mode=run.mode,
        predicted=foreseen.verdict,
        float32_islands=trace.experiments.get("islands", {}).get(name, []),
    )
    if not _blame(verdict, findings):
        _measured(verdict, run, trace)
    _scaling(trace, verdict, run.loss_scale, format_of(name))
    if foreseen.verdict and foreseen.verdict != verdict.verdict:
        why = f" ({foreseen.reason})" if foreseen.reason else ""
        verdict.reason = f"{verdict.reason}; predicted {foreseen.verdict}{why}".lstrip("; ")
    return verdict


def _blame(verdict: PrecisionVerdict, findings: list[Finding]) -> bool:
    """Let the worst finding in the way decide, of several the first that names a line; True when one did."""
    severities = [finding.severity_in(verdict.name) for finding in findings]
    for severity, outcome in ((Severity.ERROR, "fails"), (Severity.WARNING, "at-risk")):
        worst = [finding for finding, its in zip(findings, severities, strict=True) if its is severity]
        if worst:
            blamed = next((f for f in worst if f.location is not None), worst[0])
            verdict.verdict, verdict.reason = outcome, f"{blamed.code} {blamed.name}"
            if blamed.location is not None:
                verdict.where = f"{blamed.location.path}:{blamed.location.line}"
            return True
    return False


def _measured(verdict: PrecisionVerdict, run: Run, trace: Trace) -> None:
    """What the numbers say where no rule has a finding."""
    if run.loss is None or not isfinite(run.loss):
        verdict.verdict, verdict.reason = "fails", "the loss is not finite"
        return
    if run.nonfinite_gradient is not None:
        verdict.verdict, verdict.reason = "fails", f"the gradient of {run.nonfinite_gradient} is not finite"
        return
    error, cosine = run.output_error, run.gradient_cosine
    lost = run.gradient_error is not None and cosine is None and run.gradient_error >= 1.0
    reasons = []
    if error is not None and error > ERROR_AT_RISK:
        reasons.append((error > ERROR_FAILS, f"the outputs are off by {error:.0%}, as rounding inputs and weights implies"))
    if cosine is not None and cosine < COSINE_AT_RISK:
        reasons.append((cosine < COSINE_FAILS, f"the gradients point elsewhere (cosine {cosine:.2f})"))
    if lost and any(p.gradient is not None and p.gradient.max_abs for p in (trace.base or run).parameters):
        reasons.append((True, "the gradients are lost"))
        verdict.where = _where_gradients_go(run, trace)
    if reasons:
        verdict.verdict, verdict.reason = ("fails" if max(reasons)[0] else "at-risk"), max(reasons)[1]


def _where_gradients_go(run: Run, trace: Trace) -> str:
    """The first op of the backward pass whose result is all wrong."""
    for op in run.phase("backward"):
        value = run.output_of(op)
        source = run.ops[op.forward] if op.forward is not None else None
        if value is not None and value.error is not None and 0.5 < value.error <= 1.0 and source is not None:
            at = trace.place(source)
            return f"{at.path}:{at.line}" if at is not None else ""
    return ""


def _bits(run: Run, name: str) -> float | None:
    tightest = headroom(run, name)
    return tightest[0] if tightest is not None else None


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
            verdict.reason = f"{lost:.0%} of the gradients flush to 0 unscaled"


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
    kappa = trace.experiments.get("conditioning", {}).get("rounding", {}).get("output")
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
        verdict.headroom_bits = _bits(reference, name)
    if error is not None and verdict.verdict != "fails":
        verdict.output_error = error
        if error > ERROR_AT_RISK:
            verdict.verdict = "fails" if error > ERROR_FAILS else "at-risk"
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
    if worst > ERROR_AT_RISK:
        verdict.verdict, verdict.reason = (
            "at-risk",
            f"{worst:.0%} of an input of `{site}` is too small beside its largest element",
        )


def _log2(value: float) -> float:
    return log2(value) if value > 0 else -1070.0
