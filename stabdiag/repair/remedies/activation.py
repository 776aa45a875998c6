"""Activation: functions whose gradient neither dies nor saturates."""

from __future__ import annotations

import libcst as cst

from stabdiag.repair.editing.pattern import Match
from stabdiag.repair.editing.rewrite import Rule, is_inside, nearby, replacement, when
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.spelling import head, spell
from stabdiag.repair.editing.statements import replace_each
from stabdiag.repair.remedies.initialisation import initialise
from stabdiag.repair.remedy import Case, Edit, Remedy, Rewrite, Statements
from stabdiag.rule import rule_of

_RECTIFIERS = ("ReLU", "ReLU6")
_BOUNDED = ("Sigmoid", "Tanh", "Hardsigmoid", "Hardtanh", "Softsign")
_SATURATING = ("sigmoid", "tanh", "hardtanh", "hardsigmoid", "softsign")
_GELU_GAIN = 1.53  # 1/√E[GELU(z)²] for z ~ N(0, 1), by numerical integration


def _modules(case: Case, new: str) -> list[str] | None:
    """A new activation in the place of every hidden module of the kind that the finding is about."""
    finding, report = case.finding, case.report
    rectifier = finding.op.startswith("relu") or any(m.name == "relu" for m in rule_of(finding).measurements)
    last = report.weights[-1].module if report.weights else ""
    order = list(report.modules)
    hidden = order[: order.index(last)] if last in order else order
    found: list[str] = []
    for kind in _RECTIFIERS if rectifier else _BOUNDED:
        paths = [path for path in hidden if report.modules[path] == kind and path]
        found += replace_each(paths, report.modules, lambda layer: new) if paths else []
    return found or None


def _replacing(new: str) -> Statements:
    return Statements(lambda case: _modules(case, new))


def _with_initialisation(case: Case) -> list[str] | None:
    """GELU where the activations are modules; all weights that feed one are initialised."""
    lines = _modules(case, "nn.GELU()")
    if lines is None:
        return None
    feeding = [w for w in case.report.weights if w.nonlinearity and not w.normalised]
    feeding = [w for w in feeding if w.reads_input or not w.recurrent]
    feeding.sort(key=lambda w: w.reads_input)
    return lines + (initialise(case.report, feeding, lambda w: f"nn.init.xavier_normal_({{}}, gain={_GELU_GAIN})") or [])


def _normalised_gelu(source: Source, case: Case) -> str | None:
    """Replace the function that the finding marks, or the only one of the file; what it is applied to gets a name where it has
    none."""
    marked = source.at(case.finding.location)
    saturating = [call for call in source.all(cst.Call) if (made := head(source, call)) is not None and made.op in _SATURATING]
    for node in (*(nearby(source, marked) if marked is not None else ()), *(saturating if len(saturating) == 1 else ())):
        made = head(source, node)
        if made is None or made.op not in _SATURATING:
            continue
        operand = made.operands[0]
        if isinstance(operand, cst.Name):
            return source.spliced([replacement(source, node, _gelu_of(source, operand.value))])
        line = source.statement(node)
        if line is None or source.around(node, cst.BaseComp) is not None or source.around(node, cst.Lambda) is not None:  # type: ignore[type-abstract]
            continue
        name = next(n for n in ("hidden", "before", "raw") if not source.named(n))
        given = source.before(line, [f"{name} = {source.code(operand)}"])
        return source.spliced([given, replacement(source, node, _gelu_of(source, name))])
    return None


def _gelu_of(source: Source, name: str) -> str:
    return spell(source, f"F.gelu(F.layer_norm({name}, {name}.shape[-1:]))")


def _is_open(source: Source, match: Match) -> bool:
    return not is_inside(source, match.root, "detach")


_LEAKY: list[Rule] = [
    (pattern, "F.leaky_relu(x, 0.01)")
    for pattern in ("relu(x, *any)", "clamp(x, min=0)", "clamp(x, 0)", "clamp_min(x, 0)", "relu6(x)")
]
_STEPS: list[Rule] = [
    (f"{name}(x)", when(_is_open, f"x + (torch.{name}(x) - x).detach()")) for name in ("round", "sign", "floor", "ceil")
]

_OFF_PASSES = "A unit that is off passes a hundredth of its gradient on, so that it can come back (Maas, Hannun & Ng 2013)."

REMEDIES = (
    Remedy("leaky-relu", "Use LeakyReLU", _replacing("nn.LeakyReLU(0.01)"), _OFF_PASSES),
    Remedy("leaky-relu-function", "Use leaky_relu where relu is called", Rewrite(_LEAKY, anywhere=True), _OFF_PASSES),
    Remedy(
        "prelu", "Use PReLU", _replacing("nn.PReLU()"), "The slope below zero is learned (He et al. 2015, arXiv:1502.01852)."
    ),
    Remedy(
        "elu",
        "Use ELU",
        _replacing("nn.ELU()"),
        "Smooth and negative below zero: means are closer to 0, and no unit is off for good (Clevert et al. 2015, "
        "arXiv:1511.07289).",
    ),
    Remedy(
        "gelu",
        "Use GELU",
        _replacing("nn.GELU()"),
        "x·Φ(x) has a gradient on both sides of zero and does not saturate above it (Hendrycks & Gimpel 2016, "
        "arXiv:1606.08415).",
    ),
    Remedy(
        "silu",
        "Use SiLU",
        _replacing("nn.SiLU()"),
        "x·σ(x) has a gradient on both sides of zero and does not saturate above it (Elfwing et al. 2017, arXiv:1702.03118).",
    ),
    Remedy(
        "replace-activation",
        "Use GELU with the initialisation that fits it",
        Statements(_with_initialisation),
        "Each bounded activation passes back a fraction of the gradient, a sigmoid at most a quarter. GELU does not saturate; "
        "the weights in front of it get its gain, because those of a bounded activation or torch's own default are too small "
        "for depth.",
    ),
    Remedy(
        "replace-activation-function",
        "Use a normalised GELU where a saturating function is called",
        Edit(_normalised_gelu),
        "A sigmoid passes back at most a quarter of its gradient, a tanh nothing where it is saturated. GELU behind a "
        "normalisation neither vanishes nor drifts with depth.",
    ),
    Remedy(
        "straight-through",
        "Pass the gradient straight through",
        Rewrite(_STEPS),
        "Rounding and sign have slope 0 everywhere; x + (round(x) - x).detach() has the value of one and the slope of the "
        "other.",
    ),
)
