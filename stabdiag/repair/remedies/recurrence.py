"""Recurrence: what carries a state, and its gradient, over many steps."""

from __future__ import annotations

import libcst as cst

from stabdiag.repair.editing.built import attribute
from stabdiag.repair.editing.source import Source
from stabdiag.repair.editing.statements import each, replace_each
from stabdiag.repair.remedies.initialisation import initialise
from stabdiag.repair.remedy import Case, Edit, Remedy, Statements


def _over_time(case: Case) -> bool:
    return "decades_per_step" in case.finding.evidence


def _gated(case: Case, kind: str) -> list[str] | None:
    """A gated recurrence of the same sizes in the place of every `nn.RNN`, for findings about time."""
    paths = [path for path, of in case.report.modules.items() if of == "RNN" and path]
    if not paths or not _over_time(case) or any(w.recurrent and w.loaded for w in case.report.weights):
        return None

    def made(rnn: str) -> str:
        sizes = f"{rnn}.input_size, {rnn}.hidden_size, {rnn}.num_layers"
        return f"nn.{kind}({sizes}, batch_first={rnn}.batch_first, bidirectional={rnn}.bidirectional)"

    return replace_each(paths, case.report.modules, made)


def _lstm(case: Case) -> list[str] | None:
    """Every `nn.RNN`; where the model uses its second result, the hidden state, the LSTM's pair does not fit and GRU does."""
    found = _gated(case, "LSTM")
    if found is None:
        return None
    width = {w.module: w.shape[1] for w in case.report.weights if w.recurrent and w.kind == "RNN"}
    return found + [f"{attribute(path)}.bias_ih_l0.data[{n}:{2 * n}].fill_(1.0)" for path, n in width.items()]


def _identity(case: Case) -> list[str] | None:
    """Square recurrent weights."""
    square = [w for w in case.report.weights if w.recurrent and w.shape[0] == w.shape[1]]
    return initialise(case.report, square, lambda weight: "nn.init.eye_({})") if _over_time(case) else None


def _forget_bias(case: Case) -> list[str] | None:
    """Every recurrent weight of an `nn.LSTM` or `nn.LSTMCell`, whose second quarter is the forget gate."""
    found = []
    for w in case.report.weights:
        if w.recurrent and not w.loaded and w.kind in ("LSTM", "LSTMCell") and w.bias and w.shape[0] == 4 * w.shape[1]:
            bias, width = w.bias.removeprefix(w.module).lstrip("."), w.shape[1]
            gate = f".{bias}.data[{width}:{2 * width}].fill_(1.0)"
            found += each([w.module], case.report.modules, lambda layer, gate=gate: f"{layer}{gate}")  # type: ignore[misc]
    return found or None


def _unit_factor(case: Case) -> list[str] | None:
    """The factor that the finding names."""
    factor = case.finding.evidence.get("factor")
    return [f"nn.init.ones_({attribute(factor)})"] if factor else None


def _residual(source: Source, case: Case) -> str | None:
    """Where the line of the finding assigns a name an expression of itself that does not add it already."""
    node = source.at(case.finding.location)
    line = source.around(node, cst.Assign) if node is not None else None
    if line is None or not _is_of_itself(line):
        return None
    name, code = source.code(line.targets[0].target), source.code(line.value)
    simple = isinstance(line.value, cst.Call | cst.Name | cst.Attribute | cst.Subscript)
    return source.replaced((line.value, f"{name} + {code}" if simple else f"{name} + ({code})"))


def _is_of_itself(line: cst.Assign) -> bool:
    target = line.targets[0].target
    if len(line.targets) != 1 or not isinstance(target, cst.Name) or isinstance(line.value, cst.BinaryOperation):
        return False
    return any(isinstance(node, cst.Name) and node.value == target.value for node in _nodes(line.value))


def _nodes(node: cst.CSTNode) -> list[cst.CSTNode]:
    return [node, *(inner for child in node.children for inner in _nodes(child))]


REMEDIES = (
    Remedy(
        "gated-recurrence",
        "Use an LSTM in place of the plain recurrence",
        Statements(_lstm),
        "Its cell state passes from step to step through a gate instead of a weight, so the gradient need not shrink "
        "(Hochreiter & Schmidhuber 1997). The forget gates start open.",
    ),
    Remedy(
        "gru",
        "Use a GRU in place of the plain recurrence",
        Statements(lambda case: _gated(case, "GRU")),
        "Its update gate lets the state pass unchanged from step to step (Cho et al. 2014, arXiv:1406.1078); its results have "
        "the shapes of an RNN's.",
    ),
    Remedy(
        "identity-recurrence",
        "Initialise the recurrent weights as the identity",
        Statements(_identity),
        "A ReLU recurrence that starts as the identity carries its state unchanged (Le, Jaitly & Hinton 2015, "
        "arXiv:1504.00941).",
    ),
    Remedy(
        "lstm-forget-bias",
        "Initialise the forget gates' bias at 1",
        Statements(_forget_bias),
        "An LSTM whose forget gates start half closed halves its state at every step; at a bias of 1 they start open "
        "(Jozefowicz et al. 2015).",
    ),
    Remedy(
        "unit-factor",
        "Let the factor that carries a state from step to step start at 1",
        Statements(_unit_factor),
        "A state that is multiplied by a trained factor a at every step keeps its gradient over time at a = 1; at 1.15 it "
        "grows 1000 times within 50 steps. Below 1 it forgets, which training may choose.",
    ),
    Remedy(
        "residual",
        "Carry the signal past the layer (a residual connection)",
        Edit(_residual),
        "`x = x + f(x)` passes signal and gradient on unchanged beside what f makes of them (He et al. 2016, "
        "arXiv:1512.03385), so neither vanishes with depth, and rows that f makes alike stay apart (Dong, Cordonnier & Loukas "
        "2021, arXiv:2103.03404).",
    ),
)
