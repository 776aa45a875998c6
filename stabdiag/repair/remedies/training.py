"""Training settings: learning rate, clipping, loss scale, the optimizer's epsilon. Tried last, where no edit helps.

A change of precision is no remedy: a finding that nobody looks for any more is not repaired. The verdicts say which precision
to train in.
"""

from __future__ import annotations

from math import log10
from typing import Any

from stabdiag.repair.remedy import Case, Remedy, Settings

LARGEST_SCALE = 2.0**15
"""The largest scale that the float16 loss of a model cast to float16 can carry."""
WARM_UP = 1000


def _loss_factor(case: Case) -> dict[str, Any] | None:
    """The power of ten that brings typical gradients to a thousand times epsilon, or an overflowing norm to 1."""
    evidence = case.finding.evidence
    if "gradient_norm" in evidence:
        factor = 1 / evidence["gradient_norm"]
    elif evidence.get("ratio"):
        factor = 1e3 / evidence["ratio"]
    else:
        return None
    return {"loss_factor": case.request.loss_factor * 10.0 ** round(log10(factor))}


def _loss_scaling(case: Case) -> dict[str, Any] | None:
    """The scale that was measured, for float16."""
    scale, precisions = case.finding.evidence.get("loss_scale"), case.finding.precisions
    if not scale or float(scale) == 1.0 or (case.request.loss_scale or 0.0) >= float(scale):
        return None
    if any(p.removeprefix("amp-") != "float16" for p in precisions):
        return None
    return {"loss_scale": min(float(scale), LARGEST_SCALE) if "float16" in precisions else float(scale)}


def _lower_rate(case: Case) -> dict[str, Any] | None:
    """To what the curvature allows, the middle of the healthy update ratios, else a tenth: whichever the finding measured."""
    evidence = case.finding.evidence
    lr = evidence.get("lr")
    if not lr:
        return None
    if evidence.get("ratio"):
        return {"lr": lr / evidence["ratio"] / 2}
    if "calmer_lr" in evidence:
        return {"lr": evidence["calmer_lr"]}
    if "median" in evidence:
        return {"lr": lr * 1e-2 / evidence["median"]} if evidence["median"] > 1e-1 else None
    return {"lr": lr / 10}


def _higher_rate(case: Case) -> dict[str, Any] | None:
    """To an update of a thousandth of the weights where the ratio was measured, else tenfold."""
    lr, ratio = case.finding.evidence.get("lr"), case.finding.evidence.get("median")
    if not lr or (ratio and ratio > 1e-3):
        return None
    return {"lr": lr * min(1e4, 1e-3 / ratio) if ratio else lr * 10}


def _optimizer_epsilon(case: Case) -> dict[str, Any] | None:
    """A thousandth of the typical gradient where that was measured, or 1e-4 where float16 cannot hold the optimizer's own."""
    evidence = case.finding.evidence
    if case.request.eps is not None:
        return None
    if evidence.get("ratio") and evidence.get("eps"):
        return {"eps": max(1e-30, evidence["ratio"] * evidence["eps"] * 1e-3)}
    if case.finding.phase == "step" and case.finding.precisions == ["float16"]:
        return {"eps": 1e-4}
    return None


def _clipping(case: Case) -> dict[str, Any] | None:
    """Clip to 1, the usual norm, or to a tenth of the measured one where that is smaller."""
    if case.request.clip is not None:
        return None
    norm = case.finding.evidence.get("gradient_norm")
    return {"clip": 1.0 if not norm or norm > 1.0 else 0.1 * norm}


def _clip_by_value(case: Case) -> dict[str, Any] | None:
    """`clip_grad_value_` at 1 in place of clipping by norm."""
    return None if case.request.clip_value is not None else {"clip": None, "clip_value": 1.0}


REMEDIES = (
    Remedy(
        "loss-scale",
        "Bring the loss to the order of 1",
        Settings(_loss_factor),
        "Adaptive optimizers do not depend on the size of the loss, except where gradients come near their epsilon or their "
        "squares leave the range of float32. A constant factor in the loss moves them away from both.",
    ),
    Remedy(
        "loss-scaling",
        "Scale the loss, and the gradients back",
        Settings(_loss_scaling),
        "Multiplying the loss by a power of two lifts all gradients of the backward pass above the smallest number of "
        "float16; they are divided by it in float32 before the step (Micikevicius et al. 2018, arXiv:1710.03740). Nothing "
        "rounds differently otherwise.",
        keeps_function=True,
    ),
    Remedy(
        "lower-learning-rate",
        "Lower the learning rate",
        Settings(_lower_rate),
        "Gradient descent diverges along every direction whose curvature exceeds 2 over the learning rate.",
        keeps_function=True,
    ),
    Remedy(
        "higher-learning-rate",
        "Raise the learning rate",
        Settings(_higher_rate),
        "Weights that change by less than a hundred-thousandth per step do not get anywhere, and in a 16-bit format do not "
        "change at all.",
        keeps_function=True,
    ),
    Remedy(
        "warm-up",
        "Warm the learning rate up",
        Settings(lambda case: None if case.request.warm_up else {"warm_up": WARM_UP}),
        "The curvature is largest at the start, and Adam's second moment is an estimate from few gradients; a rate that rises "
        "over the first steps keeps updates small until both have settled (Goyal et al. 2017, arXiv:1706.02677; Liu et al. "
        "2020, arXiv:1908.03265).",
        keeps_function=True,
    ),
    Remedy(
        "weight-decay",
        "Decay the weights",
        Settings(lambda case: None if case.request.weight_decay is not None else {"weight_decay": 0.1}),
        "Bounds weights, and with them logits and curvature, that grow while they are trained.",
        keeps_function=True,
    ),
    Remedy(
        "gradient-clipping",
        "Clip the gradient norm",
        Settings(_clipping),
        "A step along a gradient of any size is then bounded (Pascanu, Mikolov & Bengio 2013, arXiv:1211.5063). The gradients "
        "themselves stay as they are: where initialisation explodes, clipping hides it.",
        keeps_function=True,
    ),
    Remedy(
        "clip-by-value",
        "Clip every gradient element by value",
        Settings(_clip_by_value),
        "Unlike a norm, which is computed from squares, a clamp cannot overflow: gradients above 1.8e19 keep their "
        "direction's signs instead of becoming zero.",
        keeps_function=True,
    ),
    Remedy(
        "optimizer-epsilon",
        "Give the optimizer an epsilon that fits its gradients and its format",
        Settings(_optimizer_epsilon),
        "Adam divides by √v + ε: an ε above the gradients turns it into slow gradient descent, one that is 0 in float16 "
        "divides by zero.",
        keeps_function=True,
    ),
    Remedy(
        "stochastic-rounding",
        "Round the updated weights up or down at random",
        Settings(lambda case: None if case.request.stochastic_rounding else {"stochastic_rounding": True}),
        "A weight that is rounded up with the probability of its distance from the number below moves by its update on "
        "average, however small that is (Gupta et al. 2015, arXiv:1502.02551; Zamirai et al. 2020, arXiv:2010.06192).",
        keeps_function=True,
    ),
)
