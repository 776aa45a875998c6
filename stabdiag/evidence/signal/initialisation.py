"""How large a layer's weights are, and how large the next nonlinearity wants them.

With `fan_in` independent inputs of unit mean square, a weight of standard deviation gain/√fan_in keeps the mean square of the
signal. Gains: He et al. 2015 (arXiv:1502.01852) for rectifiers, Glorot & Bengio 2010 and LeCun et al. 1998 for tanh, Klambauer
et al. 2017 (arXiv:1706.02515) for SELU; SiLU, GELU and softsign: 1/√E[φ(z)²] for z ~ N(0, 1), by numerical
integration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod, sqrt

from stabdiag.evidence.graph.main_path import is_layer
from stabdiag.evidence.graph.nonlinearity import is_relu, squashing
from stabdiag.evidence.signal.depth import data_of, weights_of
from stabdiag.finding import Fix
from stabdiag.trace import Op, Parameter, Run

GAINS = {
    "relu": sqrt(2),
    "clamp_min": sqrt(2),
    "leaky_relu": sqrt(2),
    "_prelu_kernel": sqrt(2),
    "hardtanh": sqrt(2),
    "elu": 1.25,
    "silu": 1.68,
    "gelu": 1.53,
    "hardswish": 1.73,
    "tanh": 5 / 3,
    "sigmoid": 1.0,
    "hardsigmoid": 1.0,
    "softsign": 2.34,
}
NORMALISATIONS = frozenset(
    [
        "native_layer_norm",
        "native_group_norm",
        "native_batch_norm",
        "_native_batch_norm_legit",
        "_batch_norm_with_update",
        "cudnn_batch_norm",
        "_fused_rms_norm",
        "rsqrt",
    ]
)
_TRANSPARENT = frozenset(["add", "native_dropout", "mul", "dropout", "max_pool2d_with_indices", "avg_pool2d", "clone"])


@dataclass(frozen=True)
class LayerScale:
    """The weight scale of one layer.

    Attributes:
        op: first execution; parameter: its weight; fan_in: inputs of one unit.
        gain: std(W)·√fan_in; wanted: the gain of the next nonlinearity, 1 where there is none.
        nonlinearity: its key in GAINS, "" for none; normalised: whether a normalisation follows before it.
    """

    op: Op
    parameter: Parameter
    fan_in: int
    gain: float
    wanted: float
    nonlinearity: str
    normalised: bool

    @property
    def ratio(self) -> float:
        """Gain over what is wanted; 1 is right."""
        return self.gain / self.wanted


def layer_scales(run: Run) -> Iterator[LayerScale]:
    """The weight scale of every layer whose weight is one parameter, in order of execution, each weight once."""
    parameters = {p.name: p for p in run.parameters}
    seen: set[str] = set()
    for op in run.phase("forward"):
        if op.name in ("embedding", "_embedding_bag") or not is_layer(run, op):
            continue
        for name in weights_of(run, op):
            parameter = parameters.get(name)
            if name in seen or parameter is None or parameter.stats is None or not parameter.stats.sampled:
                continue
            seen.add(name)
            fan_in = fan_in_of(run, op, parameter)
            nonlinearity, normalised = behind(run, op)
            gain = parameter.stats.rms * sqrt(fan_in)
            yield LayerScale(op, parameter, fan_in, gain, GAINS.get(nonlinearity, 1.0), nonlinearity, normalised)


def fan_in_of(run: Run, op: Op, parameter: Parameter) -> int:
    """How many inputs one unit adds up."""
    if "conv" in op.name:
        return prod(parameter.shape[1:])
    shape = run.values[data_of(run, op)].shape
    return shape[-1] if shape else 1


def behind(run: Run, op: Op, limit: int = 12) -> tuple[str, bool]:
    """(key of GAINS for the nonlinearity that a layer's result enters, whether it is normalised on the way)."""
    front, normalised = list(op.outputs[:1]), False
    for _ in range(limit):
        if not front:
            break
        for reader in run.consumers(front.pop(0)):
            if reader.phase != "forward":
                continue
            if (name := _nonlinearity(run, reader)) is not None:
                return name, normalised
            if reader.name in NORMALISATIONS:
                normalised = True
            if reader.view or reader.name in _TRANSPARENT or reader.name in NORMALISATIONS:
                front.extend(reader.outputs[:1])
    return "", normalised


def _nonlinearity(run: Run, op: Op) -> str | None:
    """The key of GAINS for an op, whether torch's own or written by hand; None when it is no nonlinearity."""
    if op.name in GAINS:
        return op.name
    return "relu" if is_relu(run, op) else squashing(run, op)


def remedy(nonlinearity: str, *, recurrent: bool = False) -> Fix:
    """The initialisation that fits a weight: orthogonal in a recurrence, He for rectifiers, Xavier elsewhere, with the gain."""
    if recurrent:
        return Fix("orthogonal-init", "initialise the recurrent weight orthogonal, spectral radius 1")
    if nonlinearity.startswith("leaky_relu"):
        return Fix("kaiming-init", "He initialisation for leaky ReLU")
    if GAINS.get(nonlinearity) == sqrt(2):
        return Fix("kaiming-init", "He initialisation for ReLU")
    what = f" for {nonlinearity.rstrip('_')}" if nonlinearity else ""
    return Fix("xavier-init", f"Xavier initialisation{what}")
