"""A NaN or an infinity is made of finite numbers and reaches the loss, an output or a gradient.

## What it does
Follows every non-finite value of a run from the op that made it of finite inputs. Reported is the birth, never a victim, and
only when the poison reaches the loss, an output or a parameter's gradient, or is healed into a finite number whose relative
error is above 0.5. The op that turned an infinity into NaN and the number of poisoned ops are evidence. A parameter or an
input that was non-finite to begin with is named as such. A result that only exceeds the format's range is SD302.

## Why it matters
One NaN in the loss is a NaN in every gradient and, after the step, in every weight. What people see is a NaN in some layer
far behind the op that made it.

## Bad
```python
import torch
from torch import nn


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(4, 3)

    def forward(self, x):
        return self.score(x)


def build_model():
    torch.manual_seed(0)
    return Tagger()


def example_inputs():
    return (torch.randn(6, 4, generator=torch.Generator().manual_seed(0)),)


def loss(output):
    labelled = torch.arange(6) > 5
    errors = (output[:, 0] - 1).square()
    of_labelled = (errors * labelled).sum() / labelled.to(errors.dtype).sum()  # expect: SD301
    return of_labelled + 0.1 * output.square().mean()
```

## Good
```python
import torch
from torch import nn


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(4, 3)

    def forward(self, x):
        return self.score(x)


def build_model():
    torch.manual_seed(0)
    return Tagger()


def example_inputs():
    return (torch.randn(6, 4, generator=torch.Generator().manual_seed(0)),)


def loss(output):
    labelled = torch.arange(6) > 5
    errors = (output[:, 0] - 1).square()
    of_labelled = (errors * labelled).sum() / labelled.to(errors.dtype).sum().clamp_min(1)
    return of_labelled + 0.1 * output.square().mean()
```

## What it does not detect
What is finite on the probed batches and breaks on others: that is SD6. Infinities that the author writes as a mask and that a
softmax, a maximum or a selection consumes are no findings, nor is anything that is discarded: of 31 healthy architectures 19
hold an infinity and none of them reaches a result. Where `inf` is a legitimate output of the model, the loss decides.

## Thresholds
None: a value is finite or it is not. A healed value counts as wrong above a relative error of 0.5
(`stabdiag.evidence.numbers.poison.HEALED_WRONG`), where what a mask legitimately heals is at rounding level.

## References
- IEEE 754-2019, clause 7: exceptions that make NaN and infinity.
- PyTorch issues 41508 and 68425: NaN far from its origin, and NaN gradients of a branch that `where` discards.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.numbers.poison import Birth, harmful, named, overflowed
from stabdiag.evidence.signal import steps
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Op, Run, Trace
from stabdiag.trace.counterpart import Counterparts, reference_of
from stabdiag.trace.formats import format_of

KIND = "range"
LEVEL = "op"
BLOCKS = True
REMEDIES = (
    *("angle-by-atan2", "bce-with-logits", "clamp-before-cast", "clamp-domain", "clamp-exponent", "combine-masks"),
    *("dtype-minimum", "bounded-logarithm", "epsilon-inside", "finite-data", "float32-island", "guarded-division"),
    *("guarded-log", "guarded-root", "diagonal-jitter", "larger-epsilon", "log-softmax", "log1p-domain", "logsigmoid"),
    *("logsumexp", "module-epsilon", "non-empty-reduction", "positive", "sanitise-input", "sigmoid", "slogdet"),
    *("softmax", "softplus", "sum-of-logs", "unmask-one-key", "zero-infinity", "vector-norm", "xlogy"),
)
explains = ("SD801", "SD803")  # steps that never start


def check(trace: Trace) -> Iterator[Finding]:
    """One finding per birth that matters, in every run of the model as built and after the two-time test's steps."""
    reference = reference_of(trace)
    broken: set[str] = set()
    found: dict[object, Finding] = {}
    for run in trace.runs:
        if run.precision == "float64" or run.seed or (run.step and run.precision in broken) or _diverged(trace, run):
            continue
        there = None if reference is None else Counterparts(run, reference)
        for birth in harmful(run):
            broken.add(run.precision)
            if overflowed(run, birth, there, format_of(run.precision)):
                continue
            finding = _finding(trace, run, birth)
            at = finding.location
            first = found.setdefault((finding.phase, finding.module, at and (at.path, at.line)), finding)
            if first is not finding:  # two logarithms on one line, each first in another precision
                first.precisions.extend(finding.precisions)
    yield from found.values()
    yield from _of_the_step(trace)


def _diverged(trace: Trace, run: Run) -> bool:
    """Whether a run stands at the end of steps that made the loss grow: what is not finite there is what divergence brought."""
    taken = next((r for r in steps.runs(trace).get(run.precision, []) if r["seed"] == run.seed), None)
    return taken is not None and run.step == taken["taken"] and steps.diverged(steps.losses(taken), 2.0)


def _of_the_step(trace: Trace) -> Iterator[Finding]:
    """Weights that the first optimizer step leaves not finite, in the precisions they are stored in; an epsilon that is 0 is
    SD505's."""
    facts = steps.optimizer(trace)
    for precision, run in trace.experiments.stored_weights.items():
        born = run["birth"]
        if not born or born["phase"] != "step" or steps.epsilon_vanishes(run, facts):
            continue
        what = {"nan": "NaN", "inf": "infinite"}[born["kind"]]
        yield Finding(
            Severity.ERROR if steps.chosen(facts) else Severity.WARNING,
            f"step {run['taken']} of {steps.named(facts)} leaves weights that are not finite: `{born['op']}` makes "
            f"{born['nonfinite']:,} of {born['count']:,} elements {what}",
            module=born["layer"],
            op=born["op"],
            phase="step",
            precisions=[precision],
            location=steps.place(facts),
            label=f"not finite after step {run['taken']}",
            evidence={"birth": born},
            fixes=[
                Fix("lower-learning-rate", "lower the learning rate"),
                *([Fix("float32-master-weights", "keep the weights in float32")] if precision != "float32" else []),
            ],
        )


def _finding(trace: Trace, run: Run, birth: Birth) -> Finding:
    op = birth.op
    phase = "forward" if op.phase == "loss" else op.phase
    what, count = _made(birth)
    source = run.ops[op.forward] if op.forward is not None else op
    made = f"gradient of `{source.name}`" if op.phase == "backward" else f"`{op.name}`"
    if birth.leaf is not None:
        message = f"{named(run, birth.leaf)} is not finite: {made} is the first of {len(birth.victims) + 1} ops to read it"
    else:
        message = f"{made} makes {count:,} of {_count(birth):,} elements {what} from finite inputs{_ranges(run, op)}"
    ends = _ends(run, birth)
    notes = [f"evidence: {ends}"]
    if birth.became_nan is not None and birth.became_nan is not op:
        notes.insert(0, f"cause: {what} until `{birth.became_nan.name}`{_at(trace, birth.became_nan)} makes NaN of it")
    if run.step:
        notes.append(f"evidence: shows after {run.step} optimizer steps")
    return Finding(
        Severity.ERROR,
        message,
        module=op.module or op.layer,
        op=op.name,
        phase=phase,
        precisions=[run.precision],
        location=trace.place(source),
        label=f"{what} is born here",
        notes=notes,
        evidence={
            "op_index": op.index,
            "count": count,
            "victims": len(birth.victims),
            "reaches": [*birth.victims],
            "ends": birth.reaches,
        },
        fixes=list(_fixes(run, birth, source)),
    )


def _made(birth: Birth) -> tuple[str, int]:
    stats = birth.value.stats
    assert stats is not None
    if stats.nan:
        return "NaN", stats.nan
    return ("inf", stats.posinf) if stats.posinf >= stats.neginf else ("-inf", stats.neginf)


def _count(birth: Birth) -> int:
    return birth.value.stats.count if birth.value.stats is not None else 0


def _ranges(run: Run, op: Op) -> str:
    known = [s for v in op.inputs if (s := run.values[run.behind_views(v)].stats) is not None and s.sampled]
    return " in " + " and ".join(f"[{s.min:.4g}, {s.max:.4g}]" for s in known[:2]) if known else ""


def _ends(run: Run, birth: Birth) -> str:
    victims = f"{len(birth.victims):,} later ops are poisoned" if birth.victims else "no later op is poisoned"
    if not birth.reaches:
        return f"{victims}; healed into a finite but wrong number"
    where = {"loss": "the loss", "outputs": "an output", "gradients": "gradients of parameters"}
    return f"{victims}, among them {' and '.join(where[r] for r in birth.reaches)}"


def _at(trace: Trace, op: Op) -> str:
    at = trace.place(op)
    return f" ({at.path}:{at.line})" if at is not None else ""


def _fixes(run: Run, birth: Birth, op: Op) -> Iterator[Fix]:
    if birth.leaf is not None:
        yield Fix("finite-data", f"make {named(run, birth.leaf)} finite before the model reads it")
    elif op.name in ("sqrt", "rsqrt", "pow", "linalg_vector_norm", "norm"):
        yield Fix("guarded-root", "keep the operand of the root above 0")
    elif op.name in ("log", "log2", "log10", "log1p"):
        yield Fix("guarded-log", "keep the operand of the logarithm above 0")
    elif op.name in ("div", "reciprocal"):
        yield Fix("guarded-division", "keep the divisor away from 0")
    elif op.name in ("exp", "expm1"):
        yield Fix("clamp-exponent", "bound the exponent")
    elif op.name in ("_softmax", "_log_softmax"):
        yield Fix("unmask-one-key", "leave at least one finite score in every row")
    elif op.name in ("mean", "nll_loss_forward", "nll_loss2d_forward", "var", "std", "var_mean"):
        yield Fix("non-empty-reduction", "do not average over an empty set")
    if run.precision != "float32":
        yield Fix("float32-island", "compute this expression in float32")
