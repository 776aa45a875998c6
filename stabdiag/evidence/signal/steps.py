"""What rules share about training steps: who chose the optimizer, its line, loss curves by precision and seed, their verdict.

Reads `trace.experiments`: "first_steps" (the two steps of every scan, `stabdiag.probe.first_steps`) and "training" (`--steps`,
`stabdiag.probe.experiments.training`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import isfinite
from statistics import median
from typing import Any

from stabdiag.finding import Severity
from stabdiag.trace import Location, Trace
from stabdiag.trace.formats import format_of


def optimizer(trace: Trace) -> dict[str, Any]:
    """Facts of the optimizer that took the steps (`stabdiag.probe.optimizer.Chosen.facts`), {} when none was taken."""
    tried = trace.experiments
    facts: dict[str, Any] = tried.training.get("optimizer") or tried.first_steps.get("optimizer") or {}
    return facts


def chosen(facts: Mapping[str, Any]) -> bool:
    """Whether the author or the command line chose the optimizer: what the default does is nobody's mistake."""
    return bool(facts) and facts["chosen_by"] != "default"


def lowered(severity: Severity, facts: Mapping[str, Any]) -> Severity:
    """The severity of a claim that hangs on the learning rate: one level lower when nobody chose it."""
    if chosen(facts):
        return severity
    return Severity.WARNING if severity is Severity.ERROR else Severity.INFO


def place(facts: Mapping[str, Any] | None) -> Location | None:
    """The `location` of a dict of facts: the line that constructed an optimizer, or ran an op."""
    at = facts.get("location") if facts else None
    return Location(**at) if at else None


def named(facts: Mapping[str, Any]) -> str:
    """The optimizer in words: "AdamW at lr 0.001 (default)"."""
    default = ", stabdiag's default" if not chosen(facts) else ""
    return f"{facts['name']} at lr {facts['lr']:g}{default}"


def calmer_rate(trace: Trace, facts: Mapping[str, Any]) -> float:
    """The learning rate at which the first steps change the typical weight matrix by 1 %, the middle of what healthy training
    does (SD806); a tenth of the present one where that is lower, or nothing was measured."""
    first = trace.experiments.first_steps
    weights = [t for t in first.get("parameters", []) if len(t["shape"]) >= 2 and t["weight"] > 0 and t["update"] > 0]
    ratio = median(t["update"] / t["weight"] for t in weights) if weights else 0.0
    return float(facts["lr"]) * min(0.1, 1e-2 / ratio if isfinite(ratio) and ratio > 0 else 0.1)


def runs(trace: Trace) -> dict[str, list[dict[str, Any]]]:
    """The runs of `--steps` by precision, one per seed, each with its `rows`. {} without `--steps`."""
    training = trace.experiments.training
    by_precision: dict[str, list[dict[str, Any]]] = {}
    for facts in training.get("runs", []):
        key = (facts["precision"], facts["seed"])
        rows = [row for row in training["rows"] if (row["precision"], row["seed"]) == key]
        by_precision.setdefault(facts["precision"], []).append({**facts, "rows": rows})
    return by_precision


def losses(run: Mapping[str, Any]) -> list[float]:
    """The loss before each step; what is not finite is kept."""
    return [float("nan") if row["loss"] is None else row["loss"] for row in run["rows"]]


def agreed(verdicts: Iterable[bool]) -> bool:
    """Whether at least two of three seeds say so (one of one, two of two)."""
    votes = list(verdicts)
    return bool(votes) and 3 * sum(votes) >= 2 * len(votes)


def diverged(curve: list[float], factor: float) -> bool:
    """Whether the loss ended above `factor` times its start: the median of its last quarter, so that one spike does not count.

    For a loss that starts negative the distance counts: start + (factor - 1)·|start|."""
    if len(curve) < 2 or not all(map(isfinite, curve)) or curve[0] == 0.0:
        return False
    tail = curve[-max(1, len(curve) // 4) :]
    return median(tail) > curve[0] + (factor - 1.0) * abs(curve[0])


def swings(curve: list[float], amplitude: float) -> int:
    """Changes of direction between two steps that each move the loss by more than `amplitude` of its median magnitude."""
    if not all(map(isfinite, curve)) or len(curve) < 3:
        return 0
    least = amplitude * median(abs(x) for x in curve)
    moves = [b - a for a, b in pairwise(curve)]
    return sum(abs(a) > least and abs(b) > least and a * b < 0 for a, b in pairwise(moves))


def decrease(curve: list[float]) -> float:
    """Largest decrease below the start, relative to the magnitude of the start; 0 when it never fell, NaN when not known."""
    if len(curve) < 2 or not all(map(isfinite, curve)) or curve[0] == 0.0:
        return float("nan")
    return max(0.0, (curve[0] - min(curve[1:])) / abs(curve[0]))


def rises(curve: list[float]) -> int:
    """Steps after which the loss was higher than before by more than rounding (1e-4 of it)."""
    return sum(b > a + 1e-4 * abs(a) for a, b in pairwise(curve))


def failed(run: Mapping[str, Any], factor: float = 2.0) -> bool:
    """Whether a run broke off, ended in a loss that is not finite, or diverged: what else it shows is a consequence."""
    curve = losses(run)
    skipping = bool(run["rows"]) and run["rows"][-1]["skipped"]
    broke = bool(run["error"]) or (bool(run["broke"]) and not skipping)
    return broke or not curve or not isfinite(curve[-1]) or diverged([x for x in curve if isfinite(x)], factor)


def broken(trace: Trace) -> dict[str, list[dict[str, Any]]]:
    """Runs whose weights an optimizer step left not finite, by precision: of `--steps` and of the first steps of every scan."""
    found: dict[str, list[dict[str, Any]]] = {}
    for precision, taken in runs(trace).items():
        found[precision] = [run for run in taken if run["broke"] == "parameters" and run["birth"]]
    for precision, run in trace.experiments.stored_weights.items():
        if run["birth"]:
            found.setdefault(precision, []).append(run)
    return {precision: of_it for precision, of_it in found.items() if of_it}


def epsilon_vanishes(run: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether a run broke in the optimizer's own ops, whose epsilon is 0 in the format of the weights."""
    born = run["birth"]
    if not born or born["phase"] != "step" or facts["eps"] is None or run["precision"].startswith("amp-"):
        return False
    return bool(facts["eps"] < format_of(run["precision"]).smallest / 2)
