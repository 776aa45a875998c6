"""A trained parameter gets a gradient of exactly zero, at the start and after optimizer steps, although it could get one.

## What it does
Reported is a parameter tensor whose gradient is exactly 0 in float64 and float32, at step 0 and after two optimizer steps,
for all batches and seeds that were run, unless it is zero by construction. Whether it is, is tried: the tensors in
question, and only they, are redrawn (at one, three and ten times the usual scale, in float64). What still gets no gradient
*and* does not change the loss is zero by construction and silent: a key bias before softmax, a bias before a normalisation,
a head that the loss does not read, an expert without tokens, a recurrent weight at a single step. So is a bias at whose layer
the samples' gradients are not zero but cancel, as those of a critic's two hinges do. What gets one was stuck:
error. What changes the loss without ever getting one lies behind an op without a gradient (sign, round, a comparison):
error too. Without the measurement after two steps: warning.

Where no parameter at all gets a gradient, all of them are redrawn: a loss that stays the same to 1e-9 has been made a constant
(centred, normalised or softmaxed over a dimension of size 1, a second derivative of a piecewise linear network), and the op is
named whose inputs changed and whose result did not. A loss that requires no gradient although there are parameters to train was
cut off (`.data`, `.detach()`, `no_grad`, a choice), and the op is named behind which autograd knows nothing of them. Both are
errors, and the model can be trained in no precision.

## Why it matters
A parameter without a gradient is not trained; weight decay alone moves it. Zeros that hold each other fixed (a zero layer
behind a zero layer) and units that are dead for all inputs never recover.

## Bad
```python
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        code = torch.tanh(self.encode(x))
        return self.decode(torch.round(code))  # expect: SD103


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(16, 8, generator=torch.Generator().manual_seed(1)),)


def loss(out):
    return F.cross_entropy(out, torch.arange(16) % 4)
```

## Good
```python
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(8, 16), nn.Linear(16, 4)
        nn.init.zeros_(self.decode.weight)

    def forward(self, x):
        code = torch.tanh(self.encode(x))
        return self.decode(code + (torch.round(code) - code).detach())


def build_model():
    torch.manual_seed(0)
    return Net()


def example_inputs():
    return (torch.randn(16, 8, generator=torch.Generator().manual_seed(1)),)


def loss(out):
    return F.cross_entropy(out, torch.arange(16) % 4)
```

## What it does not detect
Rows or channels without a gradient in a tensor that has some (dead units are SD201), parameters that autograd gives no
gradient at all because nothing reads them (SD003), gradients that are small but not zero (SD101, SD104).

## Thresholds
There are none: a gradient is zero or it is not. The noise below which a redrawn tensor counts as without gradient is 1e-9
of the largest gradient in float64; sums that cancel exactly leave 1e-16 to 1e-13.

## References
Share of exactly zero gradients from step 0 to step 2: zero-initialised head 0.92 to 0.003, ReZero 0.95 to 0, dead layer
0.998 to 0.998. Bachlechner et al. 2020 (arXiv:2003.04887); Bengio, Léonard & Courville 2013 (arXiv:1308.3432) for
straight-through gradients.
"""

from __future__ import annotations

from collections.abc import Iterator

from stabdiag.evidence.graph.author_line import line_of_op, line_of_weight
from stabdiag.evidence.graph.main_path import is_layer
from stabdiag.evidence.signal.depth import FIRST_TO_LAST, gradient_of, most_precise, weights_of
from stabdiag.evidence.signal.initialisation import behind, remedy
from stabdiag.evidence.signal.units import probed
from stabdiag.finding import Finding, Fix, Severity
from stabdiag.trace import Location, Op, Parameter, Run, Trace
from stabdiag.trace.experiments import LossDependence

KIND = "depth"
LEVEL = "op"
BLOCKS = True
REMEDIES = (
    *("kaiming-init", "leaky-relu", "leaky-relu-function", "replace-activation", "straight-through", "xavier-init"),
    *("zero-bias",),
)
FACT = FIRST_TO_LAST
explains = ("SD101", "SD501", "SD502", "SD503")


def check(trace: Trace) -> Iterator[Finding]:
    """One finding: the op that cuts off every parameter, else the op at which the gradients of some end."""
    independent = trace.experiments.loss_dependence
    if independent is not None and trace.base is not None:
        yield _nothing_learns(trace, trace.base, independent)
        return
    tried = trace.experiments.zero_gradient
    run = most_precise(trace)
    if run is None:
        return
    names = [n for n, fact in tried.items() if (fact.revived or fact.moves_loss) and not _cancels(run, n)]
    if not names:
        return
    severity = Severity.ERROR if any(r.step for r in trace.runs) else Severity.WARNING
    parameters = {p.name: p for p in run.parameters}
    stuck = [parameters[name] for name in names if name in parameters]
    cut = _where_it_ends(run, set(names))
    yield _finding(trace, run, stuck, cut, severity, any(tried[n].revived for n in names))


def _nothing_learns(trace: Trace, run: Run, found: LossDependence) -> Finding:
    """The loss depends on no parameter, or autograd does not know that it does."""
    cut = None if found.op is None else run.ops[found.op]
    count = sum(p.requires_grad for p in run.parameters)
    name = f"`{cut.name.rstrip('_')}`" if cut is not None else "the model's code"
    if found.cut == "autograd":
        message = (
            f"the loss requires no gradient: {name} cuts it off from all {count} parameter tensors, and nothing is trained"
        )
        label, evidence = "autograd ends here", "autograd recorded no way from the loss to a parameter"
        fix = Fix(
            "keep-the-graph", "stay in autograd's graph here: no .data, .detach(), no_grad or choice on the way to the loss"
        )
    else:
        message = (
            f"the loss is the same whatever the {count} parameter tensors hold: {name} makes a constant of what they "
            "change, and nothing is trained"
        )
        label, evidence = "constant from here on", "redrawn at 1, 3 and 10 times the usual scale, they do not change the loss"
        fix = _depends_again(run, cut)
    return Finding(
        Severity.ERROR,
        message,
        module=(cut.module or cut.layer) if cut is not None else "",
        op=cut.name if cut is not None else "",
        phase="backward",
        precisions=probed(trace),
        location=None if cut is None else trace.place(cut),
        label=label,
        notes=[f"evidence: {evidence}"],
        evidence={"cut": found.cut, **({"op_index": cut.index} if cut is not None else {})},
        fixes=[fix],
    )


def _depends_again(run: Run, cut: Op | None) -> Fix:
    """What makes a constant: the derivative of pieces that are straight, or a dimension with nothing to compare."""
    straight = ("leaky_relu_backward", "threshold_backward", "hardtanh_backward", "hardsigmoid_backward", "hardswish_backward")
    if any(op.name in straight for op in run.phase("forward", "loss")):
        return Fix(
            "smooth-activation",
            "use a smooth activation (softplus, SiLU, tanh): straight pieces have no curvature",
        )
    single = cut is not None and any(1 in run.values[i].shape for i in (*cut.inputs, *cut.outputs))
    if single:
        return Fix("right-dimension", "centre or normalise over a dimension that has more than one element")
    return Fix("dependent-loss", "let the loss read what the parameters change")


def _cancels(run: Run, name: str) -> bool:
    """Whether a bias has gradients to add up, which happen to cancel: those of two hinges while all samples are active."""
    for op in run.phase("forward"):
        if op.name == "add" or is_layer(run, op):
            read = (run.values[run.behind_views(i)] for i in op.inputs)
            output = run.output_of(op)
            if any(v.name == name and len(v.shape) == 1 for v in read) and output is not None:
                return output.gradient is not None and output.gradient.max_abs > 0
    return False


def _where_it_ends(run: Run, names: set[str]) -> Op | None:
    """The last forward op whose result has a gradient and whose inputs have an exactly zero one, above a stuck parameter."""
    above: set[int] = set()
    ends: Op | None = None
    for op in run.phase("forward", "loss"):
        fed = any(run.values[run.behind_views(i)].name in names or run.values[i].op in above for i in op.inputs)
        if not fed:
            continue
        above.add(op.index)
        output = run.output_of(op)
        if op.view or output is None or output.gradient is None or not output.gradient.max_abs:
            continue
        data = [run.values[i] for i in op.inputs if run.values[i].kind == "result" and run.values[i].dtype.startswith("float")]
        read = [g for v in op.inputs if run.values[v] in data and (g := gradient_of(run, v)) is not None]
        if read and all(not g.max_abs for g in read):
            ends = op
    return ends


def _finding(trace: Trace, run: Run, stuck: list[Parameter], cut: Op | None, severity: Severity, revived: bool) -> Finding:
    location: Location | None
    fixes: list[Fix]
    if cut is None:
        last = stuck[-1]
        location, why, fixes = line_of_weight(trace, last), f"nothing reaches `{last.name}`", [remedy("")]
    elif is_layer(run, cut):
        weight = next((p for name in weights_of(run, cut) for p in run.parameters if p.name == name), stuck[-1])
        location = line_of_weight(trace, weight)
        zero = weight.stats is not None and not weight.stats.max_abs
        why = f"`{weight.name}` {'is zero' if zero else 'cancels it'}"
        fixes = [remedy(behind(run, cut)[0])]
    else:
        location = line_of_op(trace, cut)
        why = f"`{cut.name.rstrip('_')}` passes no gradient on"
        fixes = [Fix("straight-through", "give it a straight-through gradient")] if not revived else _alive(cut)
    shown = ", ".join(f"`{p.name}`" for p in stuck[:3]) + (f" and {len(stuck) - 3} more" if len(stuck) > 3 else "")
    steps = " at steps 0 and 2" if severity is Severity.ERROR else " at the start (later steps were not measured)"
    return Finding(
        severity,
        f"the gradient of {shown} is exactly zero{steps}: {why}",
        module=(cut.module or cut.layer) if cut is not None else stuck[-1].module,
        op=cut.name if cut is not None else "",
        phase="backward",
        precisions=probed(trace),
        location=location,
        label="the gradient ends here",
        notes=["evidence: redrawn, these tensors " + ("get a gradient" if revived else "change the loss and get no gradient")],
        evidence={
            "parameters": [p.name for p in stuck],
            "elements": sum(p.gradient.count for p in stuck if p.gradient is not None),
            **({"op_index": cut.index} if cut is not None else {}),
        },
        fixes=fixes,
    )


def _alive(cut: Op) -> list[Fix]:
    leaky = Fix("replace-activation", "use an activation that keeps a gradient everywhere")
    if not cut.name.startswith("relu"):
        return [leaky]
    return [Fix("zero-bias", "initialise the biases in front of it at 0"), leaky]
