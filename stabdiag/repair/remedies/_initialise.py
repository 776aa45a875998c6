"""What the remedies that initialise weights share: which weights, and one statement per kind of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from stabdiag.evidence.graph.structure import Weight
from stabdiag.finding import Finding
from stabdiag.judging.report import SubjectReport
from stabdiag.repair.editing.statements import each
from stabdiag.rule import rule_of

OFF = 2.0
"""A weight this many times too large or too small is initialised anew. torch's default is 2.4 times too small for a ReLU."""
FAR_BIAS = 0.5
"""A mean bias of half the spread of a unit-variance pre-activation decides over units by itself."""


def concerned(finding: Finding, report: SubjectReport) -> list[Weight]:
    """The weights that a finding names; for one about the course over depth, all that are off scale, and their like."""
    named = set(finding.evidence.get("parameters", ()))
    weights = [w for w in report.weights if not w.recurrent]
    if named:
        return [w for w in weights if w.name in named or w.gain == 0]
    own = [w for w in weights if w.module == finding.module]
    if rule_of(finding).level == "layer":
        return own
    return [w for w in weights if (not 1 / OFF <= w.ratio <= OFF and not w.normalised) or w in own]


def initialise(report: SubjectReport, weights: Iterable[Weight], call: Callable[[Weight], str]) -> list[str] | None:
    """Statements that initialise weights and the biases next to them that are far from zero.

    Args:
        report: of the model; weights: which.
        call: the statement for one weight, with `{}` where the weight stands.
    """
    groups: dict[tuple[str, str, str, bool], list[Weight]] = {}
    for weight in weights:
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


def _separate(statement: str) -> list[str]:
    """Lines that are statements of their own."""
    return [statement] if statement.startswith(("for ", "with ")) else statement.splitlines()


def _all_of(report: SubjectReport, kind: str) -> set[str]:
    return {path for path, of in report.modules.items() if of == kind}


def scaled_normal(weight: Weight, gain: float) -> str:
    """A normal initialisation of the measured fan-in, for a weight whose sizes do not say what its fan-in is."""
    return f"nn.init.normal_({{}}, std={gain / weight.fan_in**0.5:.3g})"


def plain(weight: Weight) -> bool:
    """Whether `nn.init` reads the fan-in off the sizes: (units, inputs, …)."""
    inputs = 1
    for size in weight.shape[1:]:
        inputs *= size
    return inputs == weight.fan_in
