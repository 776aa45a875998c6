"""Whose doing it was: the step is run again with one thing changed at a time, and what makes it fine is the culprit.

In this order, because an earlier answer makes the later ones meaningless: a step that does not repeat blames nothing of the
author's; a batch that fails in every format is no matter of the format; weights that an update has thrown far away overflow in
some format anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from stabdiag.live.player import Outcome, Player
from stabdiag.trace.formats import format_of

SHRUNK = (10.0, 1e2, 1e3, 1e6)  # by what the last update is divided, to see whether a smaller rate would have done
OUTLIER = 10.0  # times the largest magnitude of the other rows
FEW = 0.25  # of a batch: more rows than this are no exception in it


class Kind(StrEnum):
    """What can be at fault."""

    SAMPLE = "sample"
    FORMAT = "format"
    RATE = "rate"
    OPTIMIZER = "optimizer"
    COMPILER = "compiler"
    HARDWARE = "hardware"
    LOSS = "loss"
    MODEL = "model"


@dataclass(frozen=True)
class Culprit:
    """Who it was; the sentence says by which experiment that is known, `evidence` holds its numbers."""

    kind: Kind
    sentence: str
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass
class Case:
    """A step that went wrong, and what it can be compared with.

    Attributes:
        player: the step; previous: the one before it, which went well.
        before: the weights before the last update, where they were kept; rate: of that update.
        limit: the loss above which the step counts as wrong although it is finite.
        compiled: what the compiled model made of the same step again; None where nothing is compiled.
        written: parameters that somebody else than the optimizer wrote since its last step.
    """

    player: Player
    previous: Player | None = None
    before: Mapping[str, Tensor] | None = None
    rate: float | None = None
    limit: float | None = None
    compiled: bool | None = None
    written: list[str] = field(default_factory=list)

    def fine(self, outcome: Outcome) -> bool:
        """Whether a step like this would have been let through."""
        return outcome.finite and (self.limit is None or not outcome.losses or outcome.loss <= self.limit)


def culprit(case: Case) -> Culprit:
    """Find the culprit by counterfactual reruns."""
    again = [case.player.outcome(), case.player.outcome()]
    return _loss(case) or _machine(case, again) or _sample(case) or _rate(case) or _format(case) or _model(case, again[0])


def _machine(case: Case, again: list[Outcome]) -> Culprit | None:
    first, second = again
    if _differ(case, first, second):
        losses = [outcome.loss for outcome in again]
        return Culprit(
            Kind.HARDWARE,
            f"this hardware: two identical reruns differ bit by bit (gradient norms {_numbers(first, second)})",
            {"losses": losses, "gradient_norms": [first.gradient_norm, second.gradient_norm]},
        )
    if not case.fine(first):
        return None
    if case.compiled is False:
        return Culprit(
            Kind.COMPILER,
            "this compiler: the compiled step fails again, the same step run eagerly is fine "
            f"(gradient norm {first.gradient_norm:.3g})",
            {"gradient_norm": first.gradient_norm},
        )
    return Culprit(
        Kind.HARDWARE,
        "this hardware, or state outside of the model: the same step run twice again is fine both times, bit for bit the same "
        f"(gradient norm {first.gradient_norm:.3g})",
        {"gradient_norms": [first.gradient_norm, second.gradient_norm]},
    )


def _differ(case: Case, first: Outcome, second: Outcome) -> bool:
    """On a GPU atomic additions change the last bits from run to run: there the outcome must change, or a percent of it."""
    if first.digest == second.digest:
        return False
    if case.player.device.type == "cpu":
        return True
    a, b = first.gradient_norm, second.gradient_norm
    return case.fine(first) != case.fine(second) or (isfinite(a) and isfinite(b) and abs(a - b) > 0.01 * max(a, b))


def _numbers(*outcomes: Outcome) -> str:
    return " and ".join(f"{outcome.gradient_norm:.9g}" for outcome in outcomes)


def _loss(case: Case) -> Culprit | None:
    """What reached the outputs is not finite, and the outputs are: it was made where nobody looked."""
    program = case.player.program
    if program.seen:
        return None
    gradients = [g for call in program.calls for g in call.gradients.values()]
    if not gradients or all(bool(torch.isfinite(g).all()) for g in gradients) or not case.player.outputs_finite():
        return None
    return Culprit(
        Kind.LOSS,
        "the loss: the outputs of the model are finite and the gradient that comes back to them is not; the loss lies outside "
        "of the model and was not seen",
        {"nonfinite": sum(int((~torch.isfinite(g)).sum()) for g in gradients)},
    )


def _sample(case: Case) -> Culprit | None:
    player, size = case.player, case.player.program.batch
    others_fine = case.previous is not None and case.fine(case.previous.outcome())
    if size is None or size < 2 or (case.previous is not None and not others_fine):
        return None
    rows = _guilty(case, list(range(size)))
    wide_fine = case.fine(player.outcome("float64"))
    if rows is not None and len(rows) <= max(1, FEW * size) and (not wide_fine or _outliers(player, rows)):
        shown = ", ".join(map(str, rows[:8])) + (" …" if len(rows) > 8 else "")
        word = "sample" if len(rows) == 1 else "samples"
        return Culprit(
            Kind.SAMPLE,
            f"this sample: {word} {shown} of the {size} in the batch; the others are fine"
            + (", and so is the batch of the step before with the same weights" if others_fine else ""),
            {"rows": rows, "batch": size},
        )
    if others_fine and not wide_fine and rows is None:
        return Culprit(
            Kind.SAMPLE,
            f"this batch: all of its {size} samples; the batch of the step before is fine with the same weights",
            {"rows": list(range(size)), "batch": size},
        )
    return None


def _guilty(case: Case, rows: list[int]) -> list[int] | None:
    """The rows that fail by themselves, by bisection; None where about all do, or the batch cannot be taken apart."""
    size = len(rows)

    def fails(part: list[int]) -> bool:
        index = torch.tensor([part[k % len(part)] for k in range(size)])
        return not case.fine(case.player.outcome(rows=index))

    guilty: list[int] = []
    todo = [rows[: size // 2], rows[size // 2 :]]
    while todo:
        part = todo.pop(0)
        if not fails(part):
            continue
        if len(part) == 1:
            guilty += part
            if len(guilty) > max(1, FEW * size):
                return None
        else:
            todo = [part[: len(part) // 2], part[len(part) // 2 :], *todo]
    return guilty or None


def _outliers(player: Player, rows: list[int]) -> bool:
    """Whether what these rows hold is far larger than what the other rows hold."""
    size = player.program.batch
    for leaf in player.program.leaves:
        if leaf.is_floating_point() and leaf.dim() and leaf.shape[0] == size:
            largest = leaf.detach().abs().flatten(1).amax(1) if leaf.dim() > 1 else leaf.detach().abs()
            guilty = torch.zeros(len(largest), dtype=torch.bool, device=largest.device)
            guilty[torch.tensor(rows, device=largest.device)] = True
            if bool(largest[guilty].min() > OUTLIER * largest[~guilty].max()):
                return True
    return False


def _rate(case: Case) -> Culprit | None:
    if case.before is None or case.written or not case.fine(case.player.outcome(weights=case.before)):
        return None
    now = {name: p.detach() for name, p in case.player.model.named_parameters()}
    for factor in SHRUNK:
        weights = {
            name: held.to(now[name].device) + (now[name] - held.to(now[name].device)) / factor
            for name, held in case.before.items()
        }
        if case.fine(case.player.outcome(weights=weights)):
            rate = "" if case.rate is None else f" of {case.rate:.3g}"
            smaller = f"1/{factor:g} of it" if case.rate is None else f"{case.rate / factor:.3g}"
            return Culprit(
                Kind.RATE,
                f"this rate: the last update, at a rate{rate}, broke the weights; with the weights before it and a rate of "
                f"{smaller} the step is fine",
                {"rate": case.rate, "factor": factor},
            )
    return None


def _format(case: Case) -> Culprit | None:
    own = case.player.precision
    narrow = format_of(own)
    for wider in ("float32", "float64"):
        if format_of(wider).digits <= narrow.digits:
            continue
        if case.fine(case.player.outcome(wider)):
            by = f"; `{case.written[0]}` was written outside of the optimizer" if case.written else ""
            return Culprit(
                Kind.FORMAT,
                f"this format: the same step is fine in {wider} and not in {own.removeprefix('amp-')}{by}",
                {"own": own, "fine_in": wider, "written": case.written},
            )
    return None


def _model(case: Case, outcome: Outcome) -> Culprit:
    by = f"; `{case.written[0]}` was written outside of the optimizer" if case.written else ""
    return Culprit(
        Kind.MODEL,
        f"this model: the step fails in every format, with every part of the batch, each time it is run{by}",
        {"loss": outcome.loss, "written": case.written},
    )
