"""The sharpest curvature of the loss, which limits the learning rate: largest eigenvalue of the Hessian by power iteration.

A quadratic with curvature λ is stable under gradient descent with momentum β only while lr·λ < 2+2β, and under Adam while the
largest eigenvalue of P⁻¹H stays below (2+2β₁)/((1−β₁)·lr), where P = √v̂ + ε is its preconditioner: 38/lr at β₁ = 0.9 (Cohen et
al. 2021, arXiv:2103.00065; Cohen et al. 2022, arXiv:2207.14484). The Rayleigh quotient of any vector is a lower bound of
the eigenvalue, so few iterations err on the quiet side.
"""

from __future__ import annotations

from math import isfinite, sqrt
from typing import Any

import torch
from torch import Tensor

from stabdiag.probe.optimizer import Chosen
from stabdiag.probe.training import Trainer

ITERATIONS = 16
CONVERGED = 0.02  # relative change of the Rayleigh quotient


def sharpness(trainer: Trainer) -> dict[str, Any]:
    """The largest eigenvalue where the stage's weights are now, and the limit it must stay below.

    Returns:
        eigenvalue: a lower bound of λmax, of P⁻¹H for Adam and its kin (`preconditioned`). None when it could not be measured;
            then `reason` says why. limit: the stable range in the same unit; ratio: eigenvalue / limit;
        iterations: Hessian-vector products taken.
    """
    chosen = trainer.chosen
    facts = chosen.facts
    parameters = [p for p in chosen.parameters if p.requires_grad]
    rate, momentum, adaptive = facts["lr"], facts["momentum"], facts["adaptive"]
    found: dict[str, Any] = {"eigenvalue": None, "limit": None, "ratio": None, "preconditioned": adaptive, "iterations": 0}
    if not adaptive and facts["name"] != "SGD":
        return found | {"reason": f"no stability limit is known for {facts['name']}"}
    if rate <= 0:
        return found | {"reason": "the learning rate is 0"}
    root = _inverse_root(chosen, parameters)
    try:
        loss = trainer.loss()
        gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        used = [(p, g, r) for p, g, r in zip(parameters, gradients, root, strict=True) if g is not None and g.requires_grad]
        if not used:
            return found | {"reason": "the loss is linear in the weights"}
        value, iterations = _power_iteration(*map(list, zip(*used, strict=True)))
    except (RuntimeError, NotImplementedError) as error:
        return found | {"reason": f"no second derivative: {' '.join(str(error).split())[:200]}"}
    if not isfinite(value):
        return found | {"reason": "the second derivative is not finite"}
    limit = (2 + 2 * momentum) / rate / ((1 - momentum) if adaptive else 1.0)
    return found | {"eigenvalue": value, "limit": limit, "ratio": value / limit, "iterations": iterations}


def _power_iteration(parameters: list[Tensor], gradients: list[Tensor], root: list[Tensor]) -> tuple[float, int]:
    """Largest algebraic eigenvalue of D·H·D with D = diag(root); when the dominant one is negative, it is shifted away."""
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(p.shape, generator=generator).to(p) for p in parameters]
    shift, best = 0.0, -float("inf")
    products = 0
    for _ in range(2):
        vector, before = _normalised(start), float("inf")
        for _ in range(ITERATIONS):
            scaled = [r * v for r, v in zip(root, vector, strict=True)]
            product = torch.autograd.grad(gradients, parameters, scaled, retain_graph=True, allow_unused=True)
            products += 1
            moved = [
                (torch.zeros_like(v) if h is None else r * h) + shift * v for h, r, v in zip(product, root, vector, strict=True)
            ]
            value = sum(float((m.double() * v.double()).sum()) for m, v in zip(moved, vector, strict=True)) - shift
            best = max(best, value)
            if not isfinite(value) or abs(value - before) <= CONVERGED * abs(value):
                break
            before, vector = value, _normalised(moved)
        if not isfinite(value):
            return value, products
        if value > 0:
            break
        shift = 1.1 * abs(value)
    return best, products


def _normalised(vector: list[Tensor]) -> list[Tensor]:
    length = sqrt(sum(float(v.double().square().sum()) for v in vector))
    return [v / length for v in vector] if length > 0 else vector


def _inverse_root(chosen: Chosen, parameters: list[Any]) -> list[Tensor]:
    """P^(-1/2) of each parameter: ones without a preconditioner."""
    roots = {id(p): torch.ones_like(p) for p in parameters}
    for optimizer in chosen.optimizers:
        for group in optimizer.param_groups:
            for p in group["params"]:
                state = optimizer.state.get(p, {})
                if "exp_avg_sq" not in state or id(p) not in roots:
                    continue
                correction = 1 - group["betas"][1] ** float(state["step"])
                second = state.get("max_exp_avg_sq", state["exp_avg_sq"])
                roots[id(p)] = ((second / correction).sqrt() + group["eps"]).rsqrt().detach()
    return [roots[id(p)] for p in parameters]
