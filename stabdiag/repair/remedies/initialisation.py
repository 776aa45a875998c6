"""Initialisation: weights and biases drawn anew at a scale that fits what is behind them. Loaded weights are never touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from stabdiag.evidence.graph.structure import Weight
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.statements import each
from stabdiag.repair.remedy import Case, Remedy, Statements
from stabdiag.rule import rule_of

OFF = 2.0
"""A weight this many times too large or too small is initialised anew. torch's default is 2.4 times too small for a ReLU."""
FAR_BIAS = 0.5
"""A mean bias of half the spread of a unit-variance pre-activation decides over units by itself."""
RECTIFIER = 2**0.5

Call = Callable[[Weight], str]


def concerned(case: Case) -> list[Weight]:
    """The weights that a finding names; for one about a layer, its own; for others, all that are off scale and its own.

    Only those off scale for what leaves a format's range: weights of the right size do not bring it back.
    """
    named = set(case.finding.evidence.get("parameters", ()))
    weights = [w for w in case.report.weights if not w.recurrent]
    if named:
        return [w for w in weights if w.name in named or w.gain == 0]
    own = [w for w in weights if w.module == case.finding.module]
    rule = rule_of(case.finding)
    if rule.level == "layer":
        return own
    off = [w for w in weights if is_off_scale(w)]
    return off if rule.kind == "range" else [w for w in weights if w in off or w in own]


def is_off_scale(weight: Weight) -> bool:
    """Whether a weight is far from what keeps the size of a signal, and nothing behind it makes up for that."""
    return not 1 / OFF <= weight.ratio <= OFF and not weight.normalised


def initialise(report: SubjectReport, weights: Iterable[Weight], call: Call) -> list[str] | None:
    """Statements that initialise weights and the biases next to them that are far from zero; loaded ones stay.

    Args:
        report: of the model; weights: which.
        call: the statement for one weight, with `{}` where the weight stands.
    """
    groups: dict[tuple[str, str, str, bool], list[Weight]] = {}
    for weight in (w for w in weights if not w.loaded):
        leaf = weight.name.removeprefix(weight.module).lstrip(".")
        key = (call(weight), weight.kind, leaf, bool(weight.bias) and abs(weight.bias_mean) > FAR_BIAS)
        groups.setdefault(key, []).append(weight)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    statements: list[str] = []
    for (text, kind, leaf, bias), members in ordered:
        others = [w for (_, k, at, _), ws in ordered for w in ws if (k, at) == (kind, leaf)]
        if len(members) > 2 and not statements and {w.module for w in others} == _all_of(report, kind):
            members = others  # what follows writes over the weights of the other groups

        def lines(layer: str, text: str = text, leaf: str = leaf, bias: bool = bias) -> str:
            code = text.format(f"{layer}.{leaf}")
            return code + (f"\nnn.init.zeros_({layer}.{leaf.replace('weight', 'bias')})" if bias else "")

        statements += each([w.module for w in members], report.modules, lines)
    return [line for statement in statements for line in _separate(statement)] or None


def initialising(weights: Callable[[Case], list[Weight] | None], call: Call) -> Statements:
    """The change that initialises some weights; `weights` gives None where it does not apply."""

    def make(case: Case) -> list[str] | None:
        chosen = weights(case)
        return initialise(case.report, chosen, call) if chosen is not None else None

    def calls(case: Case) -> dict[str, str]:
        found: dict[str, str] = {}
        for weight in (w for w in weights(case) or () if not w.loaded):
            found[weight.name] = call(weight)
            if weight.bias and abs(weight.bias_mean) > FAR_BIAS:
                found[weight.bias] = "nn.init.zeros_({})"
        return found

    return Statements(make, calls)


def _separate(statement: str) -> list[str]:
    """Lines that are statements of their own."""
    return [statement] if statement.startswith(("for ", "with ")) else statement.splitlines()


def _all_of(report: SubjectReport, kind: str) -> set[str]:
    return {path for path, of in report.modules.items() if of == kind}


def _scaled_normal(weight: Weight, gain: float) -> str:
    """A normal initialisation of the measured fan-in, for a weight whose sizes do not say what its fan-in is."""
    return f"nn.init.normal_({{}}, std={gain / weight.fan_in**0.5:.3g})"


def _is_plain(weight: Weight) -> bool:
    """Whether `nn.init` reads the fan-in off the sizes: (units, inputs, …)."""
    inputs = 1
    for size in weight.shape[1:]:
        inputs *= size
    return inputs == weight.fan_in


def _gain(weight: Weight) -> str:
    return {5 / 3: ", gain=5 / 3", 1.0: "", RECTIFIER: ", gain=math.sqrt(2)"}.get(weight.wanted, f", gain={weight.wanted:g}")


def _kaiming(weight: Weight) -> str:
    if _is_plain(weight) and abs(weight.wanted - RECTIFIER) < 1e-3:
        return "nn.init.kaiming_normal_({}, nonlinearity='relu')"
    if _is_plain(weight) and not weight.nonlinearity:
        return "nn.init.kaiming_normal_({}, nonlinearity='linear')"
    return _scaled_normal(weight, weight.wanted)


def _xavier(weight: Weight) -> str:
    if not _is_plain(weight) and len(weight.shape) == 2:
        return _scaled_normal(weight, weight.wanted)
    return f"nn.init.xavier_normal_({{}}{_gain(weight)})"


def _orthogonal(weight: Weight) -> str:
    if not weight.recurrent:
        return f"nn.init.orthogonal_({{}}{_gain(weight)})"
    if weight.shape[0] == weight.shape[1]:
        return "nn.init.orthogonal_({})"
    return f"for gate in {{}}.data.split({weight.shape[1]}):\n    nn.init.orthogonal_(gate)"


def _for_rectifiers(case: Case) -> list[Weight] | None:
    """Only where a rectifier is behind one of the weights."""
    weights = concerned(case)
    return weights if any(abs(w.wanted - RECTIFIER) < 1e-3 for w in weights) else None


def _for_orthogonal(case: Case) -> list[Weight]:
    """The recurrent weights where the finding is about time, else those that are off scale."""
    recurrent = [w for w in case.report.weights if w.recurrent]
    over_time = "decades_per_step" in case.finding.evidence
    of_recurrence = recurrent and case.finding.module in {w.module for w in recurrent}
    return recurrent if over_time or of_recurrence else concerned(case)


def _noise(case: Case) -> list[str] | None:
    """Not for weights that are all zero: those are drawn anew."""
    weights = concerned(case)

    def call(weight: Weight) -> str:
        return f"{{0}}.data.add_({0.1 * weight.wanted / weight.fan_in**0.5:.2g} * torch.randn_like({{0}}))"

    return None if any(w.gain == 0 for w in weights) else initialise(case.report, weights, call)


def _far_biases(case: Case) -> list[Weight]:
    far = [w for w in case.report.weights if w.bias and abs(w.bias_mean) > FAR_BIAS and not w.loaded]
    return far if len({w.bias.removeprefix(w.module).lstrip(".") for w in far}) == 1 else []


def _zero_bias(case: Case) -> list[str] | None:
    """All biases that are far from zero, where there are any; that of the normalisation which the finding is about."""
    report, finding = case.report, case.finding
    if "Norm" in report.modules.get(finding.module, ""):
        return each([finding.module], report.modules, lambda layer: f"nn.init.zeros_({layer}.bias)")
    far = _far_biases(case)
    if not far:
        return None
    leaf = far[0].bias.removeprefix(far[0].module).lstrip(".")
    return each([w.module for w in far], report.modules, lambda layer: f"nn.init.zeros_({layer}.{leaf})")


def _last(case: Case) -> list[Weight] | None:
    """The last layer, where the finding is about it or about the whole model."""
    last = case.report.weights[-1:]
    about = rule_of(case.finding).level == "model" or case.finding.module in {w.module for w in last}
    return last if last and about else None


def _branch_ends(case: Case) -> list[Weight] | None:
    """Only where the model has residual branches that end in a layer."""
    return [w for w in case.report.weights if w.ends_branch] or None


def _scaled_branches(case: Case) -> list[str] | None:
    """Only where the model has two residual branches or more that end in a layer."""
    ends = [w for w in case.report.weights if w.ends_branch and not w.loaded]
    if len(ends) < 2:
        return None
    factor = f"1 / math.sqrt({2 * len(ends)})"
    leaf = ends[0].name.removeprefix(ends[0].module).lstrip(".")
    return each([w.module for w in ends], case.report.modules, lambda layer: f"{layer}.{leaf}.data.mul_({factor})")


REMEDIES = (
    Remedy(
        "kaiming-init",
        "Initialise the weights for the rectifier behind them (He)",
        initialising(_for_rectifiers, _kaiming),
        "Weights of standard deviation √2/√fan_in keep the mean square of a signal through a ReLU (He et al. 2015, "
        "arXiv:1502.01852); layers with another nonlinearity behind them get its gain, and the output layer gain 1. Biases "
        "far from zero are set to it.",
    ),
    Remedy(
        "xavier-init",
        "Initialise the weights with the mean of fan-in and fan-out (Xavier), with the gain of the nonlinearity behind them",
        initialising(concerned, _xavier),
        "Keeps the variance of the signal and of its gradient where fan-in and fan-out are alike (Glorot & Bengio 2010). "
        "Biases far from zero are set to it.",
    ),
    Remedy(
        "orthogonal-init",
        "Initialise the weights orthogonal, the recurrent ones with spectral radius 1",
        initialising(_for_orthogonal, _orthogonal),
        "An orthogonal recurrent weight neither shrinks nor stretches a gradient on its way through time (Saxe et al. 2014, "
        "arXiv:1312.6120); elsewhere the gain is that of the nonlinearity behind the weight.",
    ),
    Remedy(
        "break-symmetry",
        "Add a little noise to units that start alike",
        Statements(_noise),
        "Units with equal weights get equal gradients and stay one unit. Noise of a tenth of the usual size is enough to tell "
        "them apart, and keeps most of what copied weights had learned.",
    ),
    Remedy(
        "zero-bias",
        "Initialise the biases at zero",
        Statements(_zero_bias, lambda case: {w.bias: "nn.init.zeros_({})" for w in _far_biases(case)}),
        "A bias far from zero decides alone whether a unit fires. At zero the pre-activation is centred and half of the units "
        "fire.",
    ),
    Remedy(
        "small-output-init",
        "Initialise the output layer small",
        initialising(_last, lambda weight: "nn.init.normal_({}, std=0.01)"),
        "The first outputs are then near zero: a softmax starts uniform, a sigmoid or tanh in its steep part, and the first "
        "loss is that of not knowing.",
    ),
    Remedy(
        "zero-init-branch",
        "Initialise the last layer of every residual branch at zero",
        initialising(_branch_ends, lambda weight: "nn.init.zeros_({})"),
        "The network then starts as the identity, whatever its depth, and its branches grow as they are trained (Goyal et al. "
        "2017, arXiv:1706.02677; Zhang et al. 2019, arXiv:1901.09321).",
    ),
    Remedy(
        "scale-branches",
        "Scale the last layer of every residual branch by 1/√(2N)",
        Statements(_scaled_branches),
        "N branches of unit variance add up to a stream of variance 1 + N; scaled, to at most 1.5, at any depth (Radford et "
        "al. 2019 scale by 1/√N at initialisation).",
    ),
)
