"""One verdict per precision: can this model be trained in it, and if not, which line is in the way."""

from __future__ import annotations

from math import isfinite

from stabdiag.finding import Finding, Severity
from stabdiag.formats import Format, format_of
from stabdiag.report import PrecisionVerdict
from stabdiag.scale import parameter_gradients
from stabdiag.trace import Run, Trace

UNDERFLOW_THAT_NEEDS_SCALING = 0.01  # SD104's warning share
MUST_HOLD = (
    *("SD301", "SD302", "SD303", "SD304", "SD305", "SD403", "SD104", "SD105", "SD505", "SD501", "SD503"),
    *("SD504", "SD801", "SD803", "SD804"),
)


def verdicts(trace: Trace, findings: list[Finding], asked: list[str]) -> list[PrecisionVerdict]:
    """Verdicts in the order asked for."""
    return [_verdict(trace, name, findings) for name in asked]


def _verdict(trace: Trace, name: str, findings: list[Finding]) -> PrecisionVerdict:
    run = trace.run(name)
    if run is None:
        reason = next((n.reason for n in trace.not_run if n.precision == name), "the scan ended before it")
        return PrecisionVerdict(name, "not-run", reason, mode="")
    format = format_of(name)
    verdict = PrecisionVerdict(
        name,
        "safe",
        output_error=run.output_error,
        gradient_error=run.gradient_error,
        gradient_cosine=run.gradient_cosine,
        headroom_bits=headroom(run, format),
        mode=run.mode,
    )
    in_the_way = [f for f in findings if name in f.precisions and f.code in MUST_HOLD]
    errors = [f for f in in_the_way if f.severity is Severity.ERROR]
    warnings = [f for f in in_the_way if f.severity is Severity.WARNING]
    if run.error is not None:
        verdict.verdict, verdict.reason = "fails", run.error
    elif run.loss is not None and not isfinite(run.loss):
        verdict.verdict, verdict.reason = "fails", "the loss is not finite"
    if errors:
        verdict.verdict, verdict.reason = "fails", _because(errors[0])
    elif warnings and verdict.verdict == "safe":
        verdict.verdict, verdict.reason = "at-risk", _because(warnings[0])
    blamed = (errors or warnings)[:1]
    if blamed and blamed[0].location is not None:
        verdict.where = f"{blamed[0].location.path}:{blamed[0].location.line}"
    _scaling(trace, verdict, run, format)
    return verdict


def _because(finding: Finding) -> str:
    return f"{finding.code} {finding.name}"


def _scaling(trace: Trace, verdict: PrecisionVerdict, run: Run, format: Format) -> None:
    base = trace.base
    if format.name != "float16" or base is None:
        return
    gradients = parameter_gradients(base)
    if gradients is None:
        return
    lost = gradients.underflow(format)
    verdict.gradient_underflow = lost if isfinite(lost) else None
    if isfinite(lost) and lost > UNDERFLOW_THAT_NEEDS_SCALING:
        verdict.loss_scale = run.loss_scale
        if verdict.verdict == "safe":
            verdict.verdict = "safe-with-scaling"
            verdict.reason = f"{lost:.0%} of the gradients flush to 0 unscaled"


def headroom(run: Run, format: Format) -> float | None:
    """Bits between the largest finite forward magnitude and the format's maximum; None when nothing was measured."""
    bits = [
        value.stats.headroom(format)
        for op in run.phase("forward", "loss")
        if not op.view and (value := run.output_of(op)) is not None and value.stats is not None and value.dtype == format.name
    ]
    return min((b for b in bits if isfinite(b)), default=None)
