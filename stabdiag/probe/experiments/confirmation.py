"""Confirmation of unstable expressions: a search for a plausible state in which something is no longer finite.

The ops of each expression are taken out of one more forward pass and run again on varied sources, in two groups: what data
drive (outputs of layers, inputs) and the trained parameters it is computed from. See `stabdiag/probe/search.py` for how states
are found and `stabdiag/probe/states.py` for how far away they are.

Writes `trace.experiments.confirmation`:

    {"cost": forward passes spent, "expressions": {key: {
        "status": "confirmed" | "bounded" | "tolerated" | "fixed" | "not run", then with "why",
        "observed": {"low", "high", "gap"},        of the link: the value in whose terms the limit is stated
        "driven": the same after gradient ascent on the inputs, where that was tried,
        "inputs": True where inputs alone drive it, no layer in between,
        "descent": why it was not run, where that was so,
        "spread": how far the operand is from its singular point, in its own standard deviations over samples; None unknown,
        "breaks": {format: {"value" | "gradient": {"group", "how", "factor", "moved", "largest", "low", "high", "gap",
                                                   "hidden", "state"}}}}}}

Of all states that break it, the most plausible one is kept. `group` is "data" or "parameters"; `how` one of "observed",
"scale", "negate", "raise", "lower", "descent", "zero", "constant", "duplicate", "aligned", "empty"; `moved` how far the sources
moved, in the group's unit; `largest` their largest magnitude then; `low`, `high`, `gap` the link's. `hidden`: the dangerous
op's own result is not finite there, whatever the end of the expression shows.

`state` is what broke it, to be run again by a proof: one entry per source,

    {"kind": "input" | "parameter" | "result", "name": of an input or parameter,
     "op": of a result: {"name", "module", "layer", "phase", "occurrence"}, the `occurrence`-th op of that name in that module,
     "how", "factor": as above, "shape", "values": all elements in order, None where there are more than 4,096}

Put the values in place of the input, the parameter or the op's result on batch 0 (seed and draws as recorded), and run forward,
loss and backward. Where `values` is None: "scale" and "negate" multiply by ±factor, "raise" and "lower" add ±1.0037 · factor ·
largest magnitude (± factor to a parameter), "zero" and "constant" fill with 0 and with the largest magnitude.

"bounded": nothing broke. "tolerated": it is not finite as recorded, and loss and gradients are finite all the same. "fixed":
its only sources are masks or counts.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import torch

from stabdiag.evidence.expressions.forms import EXP, REPLACEABLE, Expression, expressions
from stabdiag.evidence.expressions.plausible import plausibility
from stabdiag.probe import ascent, states
from stabdiag.probe.account import BUDGET, Account, OverBudgetError
from stabdiag.probe.guest import seed_everything
from stabdiag.probe.recorder import SEED, Recorder
from stabdiag.probe.search import DTYPES, Search
from stabdiag.probe.states import DATA, PARAMETERS, Source
from stabdiag.probe.subexpression import DivergedError, Excerpts, Subexpression, extremes
from stabdiag.recording.tracer import plain
from stabdiag.recording.unfused import unfused_recurrence
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Run, Trace
from stabdiag.trace.formats import FORMATS
from stabdiag.trace.ops import limits

_MOST = 2**25  # elements of one lane: 42 lanes take a minute (50 ns per element and lane on one core)


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
    account = Account(base)
    try:
        excerpts = _excerpts(recorder, base, found)
    except Exception as error:
        excerpts = None
        why = (
            "the model did not run the same way twice"
            if isinstance(error, DivergedError)
            else f"{type(error).__name__}: {error}"
        )
        results = {e.key: _not_run(why) for e in found}
    account.spent += account.forward
    formats = [f for f in DTYPES if f == "float32" or f in request.precisions]
    if excerpts is not None:
        begun = {e.key: _confirmed(e, base, excerpts, formats, account) for e in found}
        for key, (result, searches) in begun.items():  # after all that is cheap
            _descend(result, searches, formats)
            results[key] = result
        _drive(recorder, base, found, results, account)
    trace.experiments.confirmation = {"cost": round(account.spent / account.forward, 1), "expressions": results}


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


def _drive(recorder: Recorder, base: Run, found: list[Expression], results: dict[str, Any], account: Account) -> None:
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


def _confirmed(
    expression: Expression, base: Run, excerpts: Excerpts, formats: list[str], account: Account
) -> tuple[dict[str, Any], list[Search]]:
    """What uniform variations and special shapes do to an expression, and the searches to go on with."""
    groups = _groups(expression, base, excerpts)
    if not groups:
        return {"status": "fixed"}, []
    if (elements := account.elements(expression)) > _MOST:
        return _not_run(f"its values have {elements:,} elements, more than {_MOST:,}"), []
    result: dict[str, Any] = {"status": "bounded", "observed": {}, "breaks": {}}
    result["spread"] = _own_distance(base, expression, excerpts)
    result["inputs"] = all(base.values[s.id].kind == "input" for s in groups.get(DATA, [])) and DATA in groups
    searches = [_search(expression, base, excerpts, group, sources, account) for group, sources in groups.items()]
    try:
        for search in searches:
            for name in formats:
                breaks = search.breaks(name)
                result["observed"] = search.observed
                if name == "float32" and any(b["how"] == "observed" for b in breaks.values()) and _finite(base):
                    return {**result, "status": "tolerated"}, []
                _keep(result, name, breaks)
    except OverBudgetError:
        searches = []
        if not result["breaks"]:
            return result | _not_run(f"it would cost more than {BUDGET:g} forward passes"), []
    except Exception as error:  # an op that cannot be run again by itself
        searches = []
        if not result["breaks"]:
            return result | _not_run(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"), []
    return result, searches


def _not_run(why: str) -> dict[str, Any]:
    return {"status": "not run", "why": why}


def _descend(result: dict[str, Any], searches: list[Search], formats: list[str]) -> None:
    """Go on where nothing plausible breaks float32 yet."""
    for search in searches:
        if any(plausibility(b) <= 1 for b in result["breaks"].get("float32", {}).values()):
            return
        try:
            for name, breaks in search.descent(formats).items():
                _keep(result, name, breaks)
        except OverBudgetError:
            result["descent"] = f"it would cost more than {BUDGET:g} forward passes"
            return
        except Exception as error:  # what cannot be differentiated that way
            result["descent"] = type(error).__name__


def _keep(result: dict[str, Any], format: str, breaks: dict[str, Any]) -> None:
    """Keep the most plausible break of each kind."""
    for kind, broken in breaks.items():
        kept = result["breaks"].setdefault(format, {})
        if kind not in kept or plausibility(broken) < plausibility(kept[kind]):
            kept[kind] = broken
        result["status"] = "confirmed"


def _own_distance(base: Run, expression: Expression, excerpts: Excerpts) -> float | None:
    """How far the operand is from where the dangerous op ends, in its own standard deviations over samples; None unknown."""
    operand = excerpts.values.get(expression.operand)
    danger = base.ops[expression.danger]
    ends = limits(danger.name, danger.attributes, FORMATS["float32"])
    if operand is None or not ends or operand.dim() == 0 or len(operand) < 2:
        return None
    operand = operand.double()
    spread = float((operand - operand.mean(0, keepdim=True)).square().mean().sqrt())
    gap = min(float((operand - end.at).abs().min()) for end in ends)
    return gap / spread if spread > 0 and isfinite(gap / spread) else None


def _groups(expression: Expression, base: Run, excerpts: Excerpts) -> dict[str, list[Source]]:
    """The sources that are varied together. Data are not varied that an exponential takes from what layers make: old values,
    times. Masks, counts and ids count only where they relate rows to each other."""
    data = [i for i in expression.upstream.sources if excerpts.values[i].numel()]
    if expression.form == EXP:
        data = [i for i in data if base.values[i].kind != "input"] or data
    driven = [
        states.data_source(
            i,
            tensor := excerpts.values[i],
            positive=base.values[i].kind == "input" and bool((tensor >= 0).all()),
            fixed=_fixed(base, excerpts, i),
        )
        for i in data
    ]
    groups = {
        DATA: [s for s in driven if not s.fixed or s.related],
        PARAMETERS: [
            states.parameter_source(i, excerpts.values[i]) for i in expression.upstream.parameters if i in excerpts.values
        ],
    }
    return {group: sources for group, sources in groups.items() if sources}


def _search(
    expression: Expression, base: Run, excerpts: Excerpts, group: str, sources: list[Source], account: Account
) -> Search:
    sub = Subexpression(
        [excerpts.steps[i] for i in expression.upstream.ops],
        [excerpts.steps[i] for i in expression.path],
        [s.id for s in sources],
        expression.operand,
        expression.link,
        expression.signed,
        base.ops[expression.danger].outputs[0],
        base.ops[expression.path[-1]].outputs[0],
        expression.gap_dim,
        expression.differentiated,
        excerpts.values,
    )

    def afford(lanes: int, differentiated: bool | None) -> None:
        account.spend(account.variation(expression, lanes, differentiated))

    return Search(base, expression, sub, group, sources, account.elements(expression), afford)


def _fixed(base: Run, excerpts: Excerpts, value_id: int) -> bool:
    """Masks, counts and ids that came in as floating-point numbers are not varied."""
    tensor = excerpts.values[value_id]
    return base.values[value_id].kind == "input" and bool((tensor == tensor.round()).all())


def _finite(run: Run) -> bool:
    gradients = [p.gradient for p in run.parameters if p.gradient is not None]
    return run.loss is not None and isfinite(run.loss) and not any(g.nonfinite for g in gradients)
