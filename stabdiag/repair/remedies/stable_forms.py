"""Stable forms of logarithms and exponentials: the same on paper, without the range of what lies in between.

Each entry is a table of (pattern, template); see `stabdiag.repair.editing.pattern` for how they are written.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from stabdiag.repair.editing import flow
from stabdiag.repair.editing.pattern import Match, dimension, matches, written
from stabdiag.repair.editing.rewrite import Rule, guarded, nearby, outwards, replacement
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import head
from stabdiag.repair.remedy import Case, Edit, Remedy, Rewrite

_EACH = 'F.binary_cross_entropy_with_logits(z, y, reduction="none")'
_P, _Q = guarded("sigmoid(z)"), guarded("1 - sigmoid(z)")
_PAIRS = [*zip(_P, _Q, strict=True), (_P[1], "eps + 1 - sigmoid(z)"), (_P[1], "1 + eps - sigmoid(z)")]
_PAIRS += [(p, f"1 - {p}") for p in _P[2:]]


def _cross_entropies(body: str) -> list[Rule]:
    """The binary cross-entropy with the reductions and signs that authors give it."""
    return [
        (f"-mean({body})", "F.binary_cross_entropy_with_logits(z, y)"),
        (f"mean(-({body}))", "F.binary_cross_entropy_with_logits(z, y)"),
        (f"-sum({body})", 'F.binary_cross_entropy_with_logits(z, y, reduction="sum")'),
        (f"sum(-({body}))", 'F.binary_cross_entropy_with_logits(z, y, reduction="sum")'),
        (f"-({body})", _EACH),
        (body, f"-{_EACH}"),
    ]


_BCE_WITH_LOGITS: list[Rule] = [
    *(rule for p, q in _PAIRS for rule in _cross_entropies(f"y * log({p}) + (1 - y) * log({q})")),
    *((f"-y * log({p}) - (1 - y) * log({q})", _EACH) for p, q in _PAIRS),
    *((f"binary_cross_entropy({p}, y, ...)", "F.binary_cross_entropy_with_logits(z, y, ...)") for p in guarded("sigmoid(z)")),
]
_LOG_SOFTMAX: list[Rule] = [
    *((f"log({p})", "F.log_softmax(z, ...)") for p in guarded("softmax(z, ...)")),
    ("log(exp(z) / sum(exp(z), ...))", "F.log_softmax(z, dim=DIM)"),
    ("log(diagonal(exp(z)) / sum(exp(z), ...))", "F.log_softmax(z, dim=DIM).diagonal()"),
]


def _index_behind(source: Source, match: Match) -> str | None:
    """log(softmax(z)[i]) and log(softmax(z).gather(…)): the logarithm goes inside, what is picked stays."""
    made = head(source, match.root)
    picked = made.operands[0] if made is not None else None
    if isinstance(picked, cst.Subscript):
        code = source.code(picked)
        return f"F.log_softmax(z, ...){code[code.rindex('[') :]}" if code.endswith("]") and code.count("[") == 1 else None
    if isinstance(picked, cst.Call) and isinstance(picked.func, cst.Attribute):
        arguments = ", ".join(source.code(arg).rstrip(", ") for arg in picked.args)
        return f"F.log_softmax(z, ...).{picked.func.attr.value}({arguments})"
    return None


_LOG_SOFTMAX += [
    ("log(index(softmax(z, ...)))", _index_behind),
    ("log(gather(softmax(z, ...), *any))", _index_behind),
]
_CROSS_ENTROPY: list[Rule] = [
    *((f"nll_loss(log({p}), t)", "F.cross_entropy(z, t)") for p in guarded("softmax(z, ...)")),
    ("nll_loss(log_softmax(z, ...), t)", "F.cross_entropy(z, t)"),
]
_LOGITS: list[Rule] = [
    ("cross_entropy(softmax(z, *any), t, ...)", "F.cross_entropy(z, t, ...)"),
    ("binary_cross_entropy_with_logits(sigmoid(z), y, ...)", "F.binary_cross_entropy_with_logits(z, y, ...)"),
]
_LOGSIGMOID: list[Rule] = [
    *((f"log({p})", "F.logsigmoid(z)") for p in guarded("sigmoid(z)")),
    *((f"log({q})", "F.logsigmoid(-z)") for q in (*guarded("1 - sigmoid(z)"), "eps + 1 - sigmoid(z)", "1 + eps - sigmoid(z)")),
    *((f"log(1 - {p})", "F.logsigmoid(-z)") for p in guarded("sigmoid(z)")[2:]),
    ("log(1 / (1 + exp(-z)))", "F.logsigmoid(z)"),
]


def _over_a_dimension(source: Source, match: Match) -> str | None:
    return "torch.logsumexp(z, ...)" if match.rest else None


_LOGSUMEXP: list[Rule] = [(f"log({s})", _over_a_dimension) for s in guarded("sum(exp(z), ...)")]
_LOGADDEXP: list[Rule] = [
    ("log(1 + exp(z))", "torch.logaddexp(torch.zeros_like(z), z)"),
    ("log(exp(a) + exp(b))", "torch.logaddexp(a, b)"),
]
_SOFTMAX: list[Rule] = [
    *((f"exp(z) / ({s})", "torch.softmax(z, dim=DIM)") for s in guarded("sum(exp(z), ...)")),
    ("exp(z) / unsqueeze(sum(exp(z), ...), *any)", "torch.softmax(z, dim=DIM)"),
    ("exp(z) / index(sum(exp(z), ...))", "torch.softmax(z, dim=DIM)"),
]


def _shift(source: Source, case: Case) -> str | None:
    """Shift the exponent by its largest value in the row that is summed, or in the group of a scatter."""
    marked = source.at(case.finding.location)
    for node in nearby(source, marked) if marked is not None else ():
        made = head(source, node)
        if made is None or made.op != "exp":
            continue
        exponent = made.operands[0]
        if (inner := head(source, exponent)) is not None and inner.op == "sub":
            return None
        largest = next((text for used in _uses(source, node) if (text := _largest(source, used, exponent)) is not None), None)
        if largest is not None:
            shifted = written(source, f"torch.exp(z - ({largest}))", {"z": source.code(exponent)})
            return source.spliced([replacement(source, node, shifted)])
    return None


def _uses(source: Source, node: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    """Expressions around an expression, and around the uses of the name that it is assigned to."""
    yield from outwards(source, node)
    statement = next((a for a in source.ancestors(node) if isinstance(a, cst.BaseSmallStatement)), None)
    if isinstance(statement, cst.Assign) and statement.value is node and isinstance(statement.targets[0].target, cst.Name):
        for use in flow.uses(source, statement):
            yield from outwards(source, use)


def _largest(source: Source, used: cst.BaseExpression, exponent: cst.BaseExpression) -> str | None:
    """The largest exponent of each sum that an expression takes, as code; None where it takes none."""
    z = f"({source.code(exponent)})" if not isinstance(exponent, cst.Name | cst.Call | cst.Attribute) else source.code(exponent)
    for match in matches(source, "sum(e, ...)", used):
        dim = dimension(source, match)
        return f"{z}.amax(dim={dim}, keepdim=True)" if dim is not None else f"{z}.max()"
    made = head(source, used)
    if made is not None and made.op.rstrip("_") in ("index_add", "scatter_add") and len(made.operands) == 4:
        into, dim, index = (source.code(operand) for operand in made.operands[:3])
        if dim == "0" and isinstance(made.operands[2], cst.Name):
            empty = f'{z}.new_full({into}.shape, -float("inf"))'
            return f'{empty}.index_reduce(0, {index}, {z}, "amax")[{index}].detach()'
    return None


_SIGMOID: list[Rule] = [
    ("1 / (1 + exp(-z))", "torch.sigmoid(z)"),
    ("1 / (1 + exp(z))", "torch.sigmoid(-z)"),
    ("exp(z) / (1 + exp(z))", "torch.sigmoid(z)"),
]
_SOFTPLUS: list[Rule] = [
    ("log(1 + exp(z))", "F.softplus(z)"),
    ("log1p(exp(z))", "F.softplus(z)"),
    ("log(cosh(z))", "torch.abs(z) + F.softplus(-2 * torch.abs(z)) - 0.6931471805599453"),
]
_CANCEL: list[Rule] = [
    *((f"log({e})", "x") for e in guarded("exp(x)")),
    *((f"exp(log({x}))", "x") for x in guarded("x")),
]
_SUM_OF_LOGS: list[Rule] = [
    ("log(prod(x, ...))", "torch.log(x).sum(...)"),
    ("log(cumprod(x, ...))", "torch.log(x).cumsum(...)"),
    ("log(a) - log(a + b)", "-torch.log1p(b / a)"),
]
_XLOGY: list[Rule] = [
    *((f"y * log({x})", "torch.xlogy(y, x)") for x in reversed(guarded("x"))),
]


def _other_dimension(source: Source, match: Match) -> str:
    dims = [source.code(arg.value) for arg in match.rest or () if arg.keyword is None or arg.keyword.value in ("dim", "axis")]
    return "torch.softmax(z, dim=1)" if dims[:1] != ["1"] else "torch.softmax(z, dim=-1)"


REMEDIES = (
    Remedy(
        "log-softmax",
        "Use log_softmax instead of the logarithm of a softmax",
        Rewrite(_LOG_SOFTMAX),
        "`log_softmax` subtracts the largest logit first, so it neither underflows to log(0) nor loses the gradient. Where "
        "the model returns the softmax and the loss takes the logarithm, the model returns the logits instead.",
        keeps_function=True,
    ),
    Remedy(
        "cross-entropy",
        "Give the loss logits instead of probabilities",
        Rewrite(_CROSS_ENTROPY),
        "`cross_entropy` is `nll_loss` of `log_softmax` in one step; the model returns logits, the loss stays what it was.",
        keeps_function=True,
    ),
    Remedy(
        "bce-with-logits",
        "Use binary cross-entropy with logits",
        Rewrite(_BCE_WITH_LOGITS),
        "The sigmoid and the logarithm cancel on paper: -log σ(z) = softplus(-z), which has no limit, where log(1 - σ(z)) is "
        "log(0) from a logit of 17 on. The model returns logits then.",
        keeps_function=True,
    ),
    Remedy(
        "logsigmoid",
        "Use logsigmoid instead of the logarithm of a sigmoid",
        Rewrite(_LOGSIGMOID),
        "log σ(z) = -softplus(-z) and log(1 - σ(z)) = -softplus(z) have no limit; computed in two steps they are log(0) from "
        "a logit of 17 (float32) on. Where the model returns the sigmoid and the loss takes the logarithm, the model returns "
        "the logits instead.",
        keeps_function=True,
    ),
    Remedy(
        "logsumexp",
        "Use logsumexp instead of the logarithm of a sum of exponentials",
        Rewrite(_LOGSUMEXP),
        "`logsumexp` subtracts the largest term first; without that, one exponent above 88.7 (11.1 in float16) is infinite.",
        keeps_function=True,
    ),
    Remedy(
        "logaddexp",
        "Use logaddexp for the logarithm of a sum of two exponentials",
        Rewrite(_LOGADDEXP),
        "`logaddexp` takes the larger exponent out of the sum, so neither exponential overflows.",
        keeps_function=True,
    ),
    Remedy(
        "softmax",
        "Use softmax instead of exponentials divided by their sum",
        Rewrite(_SOFTMAX),
        "`softmax` subtracts the largest logit first; without that, one logit above 88.7 (11.1 in float16) makes NaN of its "
        "row.",
        keeps_function=True,
    ),
    Remedy(
        "shift-by-maximum",
        "Subtract the maximum before the exponential",
        Edit(_shift),
        "What is divided by its own sum afterwards does not change, and no exponent is above 0.",
        keeps_function=True,
    ),
    Remedy(
        "sigmoid",
        "Use sigmoid instead of 1 / (1 + exp(-z))",
        Rewrite(_SIGMOID),
        "`sigmoid` needs no exponential of a large number; written out, its gradient is 0 · inf from 88.7 on.",
        keeps_function=True,
    ),
    Remedy(
        "softplus",
        "Use softplus instead of log(1 + exp(z))",
        Rewrite(_SOFTPLUS),
        "`softplus` is z for large z; log(1 + exp(z)) is infinite from 88.7 (11.1 in float16) on.",
        keeps_function=True,
    ),
    Remedy(
        "cancel-log-exp",
        "Cancel a logarithm against an exponential",
        Rewrite(_CANCEL),
        "log(exp(x)) is x, without the range of exp in between.",
        keeps_function=True,
    ),
    Remedy(
        "sum-of-logs",
        "Add logarithms instead of taking the logarithm of a product",
        Rewrite(_SUM_OF_LOGS),
        "A product of many probabilities leaves the range of every format; the sum of their logarithms does not, and its "
        "gradient is exact.",
        keeps_function=True,
    ),
    Remedy(
        "xlogy",
        "Use xlogy for x · log x, which is 0 at 0",
        Rewrite(_XLOGY),
        "0 · log(0) is NaN; `xlogy` gives the limit.",
        keeps_function=True,
    ),
    Remedy(
        "pass-logits",
        "Give the loss the logits, without an activation in front of it",
        Rewrite(_LOGITS),
        "The loss applies softmax or sigmoid itself; applied twice, the gradient is damped and the loss is bounded from below.",
    ),
    Remedy(
        "cross-entropy-of-scores",
        "Use cross_entropy for scores that are no log-probabilities",
        Rewrite([("nll_loss(z, t, ...)", "F.cross_entropy(z, t, ...)")]),
        "`nll_loss` only picks elements: raw scores make it fall without end. `cross_entropy` takes their log_softmax first.",
    ),
    Remedy(
        "sigmoid-for-softmax",
        "Use a sigmoid where a softmax has a single logit",
        Rewrite([("softmax(z, ...)", "torch.sigmoid(z)")]),
        "A softmax over one element is 1 whatever it is given, and its gradient is 0.",
    ),
    Remedy(
        "right-dimension",
        "Normalise over the other dimension",
        Rewrite([("softmax(z, ...)", _other_dimension)]),
        "A softmax over a dimension of size 1 is 1 whatever it is given.",
    ),
)
