"""What further probes found beyond the recorded runs: one field of `Experiments` per module of `stabdiag/probe/experiments/`.

Each is empty where its experiment had no reason to run. Plain data like the rest of the trace; op indices are those of the run
that is named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Conditioning:
    """How much one perturbation grows on its way through the reference run.

    Attributes:
        output: κ, the relative change of the outputs over that of what was perturbed; None where it could not be told.
        ops: κ of each op's result, by op index in the reference run.
        flips: discrete ops (top-k, comparisons) that chose differently, so that κ is no derivative.
    """

    output: float | None = None
    ops: dict[int, float] = field(default_factory=dict)
    flips: list[int] = field(default_factory=list)


@dataclass(slots=True)
class DescentTried:
    """What the reference loss falls by along gradients.

    Attributes:
        predicted, actual: along its own gradient, to first order and tried.
        lowered: by precision, along that one's gradient.
        sampling: noise of the gradient between samples, relative to it; None where it is unknown.
    """

    predicted: float
    actual: float
    lowered: dict[str, float] = field(default_factory=dict)
    sampling: float | None = None


@dataclass(slots=True)
class EpsilonTried:
    """An epsilon that a format cannot hold: whether the run `breaks` at an operand of 0, and a blank sample `reached` that."""

    breaks: bool
    reached: bool


@dataclass(slots=True)
class LocalError:
    """The relative error that one op (index in its run) makes of exact operands."""

    op: int
    local: float


@dataclass(slots=True)
class LossDependence:
    """Why the loss depends on no parameter: cut off from "autograd" or constant in "value", at which op of the base run."""

    cut: str
    op: int | None


@dataclass(slots=True)
class Lost:
    """Of a parameter's gradient in 16 bits without scaling: `elements` that are not zero, and the share of energy `lost`."""

    elements: int
    lost: float


@dataclass(slots=True)
class ZeroGradient:
    """A parameter without a gradient, redrawn: whether that revived its gradient, and whether it moves the loss at all."""

    revived: bool
    moves_loss: bool


@dataclass(frozen=True, slots=True)
class SideBranches:
    """Ops inside a run that lose their first digit.

    Attributes:
        ops: indices in that run.
        before, after: output errors of the run, and of one with their results taken from the reference.
    """

    ops: list[int]
    before: float
    after: float


@dataclass(slots=True)
class Experiments:
    """Everything that experiments found.

    Attributes:
        conditioning: by perturbation ("rounding", "spread") or precision.
        descent, loss_dependence: None where there was no doubt.
        epsilon: by precision and op index there.
        islands: by precision, the lines "path:line" that must stay in float32.
        local_error, zero_gradient: by precision; by parameter.
        loss_curve: losses before each of the steps that were asked for and after the last; ends with what is not finite.
        side_branches: by precision.
        replayed: of each state that was asked for {"broken", "path", "line"}.
        unscaled: by precision, step and parameter.
        first_steps, stored_weights, training: documented by `stabdiag/probe/first_steps.py` and the experiments of that name.
        confirmation: documented by the experiment of that name.
    """

    conditioning: dict[str, Conditioning] = field(default_factory=dict)
    confirmation: dict[str, Any] = field(default_factory=dict)
    descent: DescentTried | None = None
    epsilon: dict[str, dict[int, EpsilonTried]] = field(default_factory=dict)
    first_steps: dict[str, Any] = field(default_factory=dict)
    islands: dict[str, list[str]] = field(default_factory=dict)
    local_error: dict[str, LocalError] = field(default_factory=dict)
    loss_curve: list[float] = field(default_factory=list)
    loss_dependence: LossDependence | None = None
    replayed: list[dict[str, Any]] = field(default_factory=list)
    side_branches: dict[str, SideBranches] = field(default_factory=dict)
    stored_weights: dict[str, dict[str, Any]] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    unscaled: dict[str, dict[int, dict[str, Lost]]] = field(default_factory=dict)
    zero_gradient: dict[str, ZeroGradient] = field(default_factory=dict)
