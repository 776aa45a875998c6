"""Confirmation of unstable expressions: push the operand out of its observed range until something is no longer finite.

The ops of each expression are taken out of one more forward pass and run again on varied sources (the outputs of the layers
that feed it): scaled by ±k, shifted by ±k times their largest magnitude, for k from 1 to 1000; set to 0; set to a constant. A
layer that is 0 as built is varied as if its largest magnitude were 1. The smallest k at which the result or the gradient of the
operand is not finite, while the operand itself is, is refined to 1 %.

Writes `trace.experiments["confirmation"]`:

    {"cost": forward passes spent, "expressions": {key: {
        "status": "confirmed" | "bounded" | "tolerated" | "fixed" | "not run: why",
        "observed": {"low", "high", "gap"},        of the link: the value in whose terms the limit is told
        "driven": the same after gradient ascent on the inputs, where that was tried,
        "breaks": {format: {"value" | "gradient": {"factor", "how", "low", "high", "gap", "at", "hidden", "source"}}}}}}

`factor` is k (1 where it breaks at what was observed), `how` one of "observed", "scale", "negate", "raise", "lower", "zero",
"constant"; `at` is the smallest magnitude of the link that breaks, `source` the largest magnitude of the sources then;
`hidden`: the dangerous op's own result is not finite there, whatever the end of the expression shows. "bounded": nothing broke.
"tolerated": it is not finite as recorded, and loss and gradients are finite all the same. "fixed": its only sources are masks
or counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any

import torch

from stabdiag.evidence.expressions.forms import EXP, REPLACEABLE, Expression, expressions
from stabdiag.probe import ascent
from stabdiag.probe.guest import seed_everything
from stabdiag.probe.recorder import SEED, Recorder
from stabdiag.probe.subexpression import DivergedError, Excerpts, Lanes, Subexpression, extremes
from stabdiag.recording.tracer import plain
from stabdiag.recording.unfused import unfused_recurrence
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Op, Run, Trace

BUDGET = 50.0  # forward passes
# What calling an op costs, in multiply-adds: 5 µs at some 2 per ns on one CPU core.
_CALL = 10_000
_LARGEST = 2**26  # elements of all tensors of an expression, all lanes together: autograd keeps them
_MOST = 2**25  # elements of one lane: 42 lanes take a minute (50 ns per element and lane on one core)
_FACTORS = [10 ** (e / 3) for e in range(10)]  # 1 to 1000
_REFINED = 12
_OFF_ZERO = 1.0037  # a shift by exactly the largest magnitude would put that element on 0 by construction
_DIRECTIONS: dict[str, Callable[[float], tuple[float, float]]] = {
    "scale": lambda k: (k, 0.0),
    "negate": lambda k: (-k, 0.0),
    "raise": lambda k: (1.0, _OFF_ZERO * k),
    "lower": lambda k: (1.0, -_OFF_ZERO * k),
}
_DEGENERATE = {"zero": (0.0, 0.0), "constant": (0.0, 1.0)}
_FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def run(recorder: Recorder, trace: Trace, request: ScanRequest, progress: Callable[[str, float], None]) -> None:
    """Confirm or refute every candidate in the float32 run, those with a stable replacement first."""
    base = trace.run("float32")
    if base is None:
        return
    found = sorted(expressions(base), key=lambda e: (e.form not in REPLACEABLE, e.op))
    if not found:
        return
    progress("confirmation", 0.95)
    results: dict[str, Any] = {}
    account = _Account(base)
    try:
        excerpts = _excerpts(recorder, base, found)
    except Exception as error:
        excerpts = None
        why = (
            "the model did not run the same way twice"
            if isinstance(error, DivergedError)
            else f"{type(error).__name__}: {error}"
        )
        results = {e.key: {"status": f"not run: {why}"} for e in found}
    account.spent += account.forward
    formats = [f for f in _FORMATS if f == "float32" or f in request.precisions]
    if excerpts is not None:
        for expression in found:
            results[expression.key] = _confirmed(expression, base, excerpts, formats, account)
        _drive(recorder, base, found, results, account)
    trace.experiments["confirmation"] = {"cost": round(account.spent / account.forward, 1), "expressions": results}


def _excerpts(recorder: Recorder, base: Run, found: list[Expression]) -> Excerpts:
    """Forward and loss once more, keeping what the expressions are made of."""
    wanted = {i for e in found for i in (*e.upstream.ops, *e.path)}
    replay = recorder.replays.get((0, 0, 0))
    with recorder.stage("float32") as stage:
        seed_everything(SEED)
        inputs = recorder.inputs(stage, 0)
        excerpts = Excerpts(base, wanted, plain if replay is None else replay.replaying(plain))
        with torch.enable_grad(), unfused_recurrence(), excerpts, stage.precision.context(stage.device.type):
            recorder.subject.objective(stage.model, inputs)
    return excerpts


def _drive(recorder: Recorder, base: Run, found: list[Expression], results: dict[str, Any], account: _Account) -> None:
    """Note how far gradient ascent on the inputs gets with the links of what breaks in float32, but not as recorded."""
    links = {e.key: e for e in found if _breaks_later(results[e.key])}
    if not links or not account.affords(ascent.COST * account.forward):
        return
    try:
        values = ascent.driven(recorder, base, {e.link for e in links.values()})
    except Exception:  # a model that cannot be differentiated by its inputs: what is confirmed stays so
        return
    for key, expression in links.items():
        if (value := values.get(expression.link)) is not None:
            low, high, gap = extremes(value[None], expression.gap_dim)
            results[key]["driven"] = {"low": float(low), "high": float(high), "gap": float(gap) if isfinite(gap) else None}


def _breaks_later(result: dict[str, Any]) -> bool:
    kinds = result.get("breaks", {}).get("float32", {})
    return bool(kinds) and all(where["how"] != "observed" for where in kinds.values())


class _Account:
    """Counted work, so that two scans of the same model spend alike: multiply-adds and a constant per op."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.forward = sum(self.of(op) for op in run.phase("forward", "loss")) or 1.0
        self.spent = 0.0

    def of(self, op: Op, lanes: int = 1) -> float:
        """The work of one op on `lanes` variations at once."""
        elements = sum(_size(self.run.values[i].shape) for i in op.outputs[:1])
        return 0.0 if op.view else _CALL + lanes * elements * _inner(op, self.run)

    def variation(self, expression: Expression, lanes: int) -> float:
        """The work of one call of `Subexpression.vary`; backward counts twice forward."""
        before = sum(self.of(self.run.ops[i], lanes) for i in expression.upstream.ops)
        after = sum(self.of(self.run.ops[i], lanes) for i in expression.path)
        return (before + after) * (3 if expression.differentiated else 1)

    def elements(self, expression: Expression) -> int:
        """Elements of all values of an expression, from its sources to its end."""
        made = (o for i in (*expression.upstream.ops, *expression.path) for o in self.run.ops[i].outputs)
        return sum(_size(self.run.values[i].shape) for i in {*expression.upstream.sources, *made}) or 1

    def affords(self, work: float) -> bool:
        """Whether the budget still holds it; then it is spent."""
        if self.spent + work > BUDGET * self.forward:
            return False
        self.spent += work
        return True


def _size(shape: Iterable[int]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _inner(op: Op, run: Run) -> int:
    """Multiply-adds per element of the result."""
    shapes = [run.values[i].shape for i in op.inputs]
    if op.name in ("mm", "bmm", "addmm", "baddbmm") and len(shapes) >= 2:
        return shapes[-2][-1]
    if "convolution" in op.name and len(shapes) >= 2:
        return max(1, _size(shapes[1]) // max(1, shapes[1][0]))
    return 1


def _confirmed(expression: Expression, base: Run, excerpts: Excerpts, formats: list[str], account: _Account) -> dict[str, Any]:
    sources = [i for i in expression.upstream.sources if not _fixed(base, excerpts, i)]
    if expression.form == EXP:  # data stay what they are where they meet what layers make: old log-probabilities, times
        sources = [i for i in sources if base.values[i].kind != "input"] or sources
    if not sources:
        return {"status": "fixed"}
    if (elements := account.elements(expression)) > _MOST:
        return {"status": f"not run: its values have {elements:,} elements, more than {_MOST:,}"}
    sub = Subexpression(
        [excerpts.steps[i] for i in expression.upstream.ops],
        [excerpts.steps[i] for i in expression.path],
        sources,
        {i for i in sources if base.values[i].kind == "input" and bool((excerpts.values[i] >= 0).all())},
        expression.operand,
        expression.link,
        base.ops[expression.danger].outputs[0],
        base.ops[expression.path[-1]].outputs[0],
        expression.gap_dim,
        expression.differentiated,
        excerpts.values,
    )
    search = _Search(expression, sub, account)
    result: dict[str, Any] = {"status": "bounded", "observed": {}, "breaks": {}}
    try:
        for name in formats:
            breaks = search.breaks(name)
            result["observed"] = search.observed
            if name == "float32" and any(b["how"] == "observed" for b in breaks.values()) and _finite(base):
                return {**result, "status": "tolerated"}
            if breaks:
                result["breaks"][name] = breaks
    except _OverBudgetError:
        if not result["breaks"]:
            return {**result, "status": f"not run: it would cost more than {BUDGET:g} forward passes"}
    except Exception as error:  # an op that cannot be run again by itself
        if not result["breaks"]:
            return {**result, "status": f"not run: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    if result["breaks"]:
        result["status"] = "confirmed"
    return result


def _fixed(base: Run, excerpts: Excerpts, value_id: int) -> bool:
    """Masks, counts and ids that came in as floating-point numbers are not varied."""
    tensor = excerpts.values[value_id]
    return base.values[value_id].kind == "input" and bool((tensor == tensor.round()).all())


def _finite(run: Run) -> bool:
    gradients = [p.gradient for p in run.parameters if p.gradient is not None]
    return run.loss is not None and isfinite(run.loss) and not any(g.nonfinite for g in gradients)


class _OverBudgetError(Exception):
    pass


class _Search:
    """Finds the smallest variation that breaks one expression in one format."""

    def __init__(self, expression: Expression, sub: Subexpression, account: _Account) -> None:
        self.expression, self.sub, self.account = expression, sub, account
        self.observed: dict[str, float | None] = {}
        self.directions = list(_DIRECTIONS)
        sources = [t[torch.isfinite(t)].abs() for t in (sub.values[i] for i in sub.sources)]
        self.largest = max((float(t.max()) for t in sources if t.numel()), default=0.0) or 1.0

    def breaks(self, format: str) -> dict[str, Any]:
        """kind ("value", "gradient") -> where it breaks, for the kinds that do."""
        plan = [("observed", 1.0, (1.0, 0.0))]
        plan += [(d, k, _DIRECTIONS[d](k)) for d in self.directions for k in _FACTORS if (d, k) != ("scale", 1.0)]
        plan += [(how, 1.0, variation) for how, variation in _DEGENERATE.items()]
        lanes = self._vary([variation for _, _, variation in plan], format)
        if not self.observed:
            self.observed = _link(lanes, 0)
        found: dict[str, Any] = {}
        for kind, counts in (("value", lanes.value), ("gradient", lanes.gradient)):
            broken = [i for i in range(len(plan)) if _breaks_here(lanes.operand, counts, i)]
            if not broken:
                continue
            first = min(broken, key=lambda i: (plan[i][0] in _DEGENERATE, plan[i][1], i))
            how, factor, _ = plan[first]
            if how in _DIRECTIONS and factor > 1:
                found[kind] = self._refined(kind, how, factor, format)
            else:
                found[kind] = {"factor": factor, "how": how, **self._where(lanes, first, how, factor)}
        if format == "float32" and found:  # narrower formats break the same way, only sooner
            ways = {b["how"] for b in found.values()} & set(_DIRECTIONS)
            self.directions = [d for d in self.directions if d in ways] or self.directions
        return found

    def _refined(self, kind: str, how: str, factor: float, format: str) -> dict[str, Any]:
        low = factor / _FACTORS[1]
        found: dict[str, Any] = {}
        for _ in range(2):
            ratio = (factor / low) ** (1 / _REFINED)
            factors = [low * ratio ** (i + 1) for i in range(_REFINED)]
            lanes = self._vary([_DIRECTIONS[how](k) for k in factors], format)
            counts = lanes.value if kind == "value" else lanes.gradient
            first = next((i for i, count in enumerate(counts) if count), _REFINED - 1)
            factor, low = factors[first], factors[first] / ratio
            found = {"factor": factor, "how": how, **self._where(lanes, first, how, factor)}
        return found

    def _where(self, lanes: Lanes, lane: int, how: str, factor: float) -> dict[str, Any]:
        times = {"scale": factor, "negate": factor, "raise": 1 + factor, "lower": 1 + factor, "zero": 0.0}.get(how, 1.0)
        return {**_link(lanes, lane), "hidden": lanes.inner[lane] > 0, "source": times * self.largest}

    def _vary(self, variations: list[tuple[float, float]], format: str) -> Lanes:
        if not self.account.affords(self.account.variation(self.expression, len(variations))):
            raise _OverBudgetError
        at_once = max(1, _LARGEST // self.account.elements(self.expression))
        parts = [self.sub.vary(variations[i : i + at_once], _FORMATS[format]) for i in range(0, len(variations), at_once)]
        return Lanes(*([x for part in parts for x in getattr(part, name)] for name in Lanes.__slots__))


def _breaks_here(operand: list[int], counts: list[int], lane: int) -> bool:
    """Not finite behind an operand that is; where the recorded operand holds masks, more of it than was recorded."""
    if operand[0] == 0:
        return operand[lane] == 0 and counts[lane] > 0
    return operand[lane] <= operand[0] and counts[lane] > counts[0]


def _link(lanes: Lanes, lane: int) -> dict[str, float | None]:
    values = {"low": lanes.low[lane], "high": lanes.high[lane], "gap": lanes.gap[lane], "at": lanes.at[lane]}
    return {name: value if isfinite(value) else None for name, value in values.items()}
