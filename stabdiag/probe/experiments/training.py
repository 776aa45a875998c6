"""Training steps (`--steps N`): loss curves in every precision asked for, what breaks them, and the curvature.

Writes `trace.experiments.training`:
    optimizer: `stabdiag.probe.optimizer.Chosen.facts`.
    steps: how many were asked for; clip: the norm gradients are clipped to, None for no clipping.
    rows: one dict per step: precision, seed, step, loss, gradient_norm, scale, skipped.
    runs: one dict per precision and seed: precision, seed, mode ("native", "emulated"), taken (steps), broke ("", "loss",
        "gradient", "parameters": what was not finite at the last step), birth (`stabdiag.probe.birth`; None when nothing
        broke or it was not found), clipped_to_zero (steps), poisoned_buffers (names), first_scale_that_works and structural
        (with a loss scaler: the largest scale that was accepted, and whether the overflow is there at scale 1 too), error (why
        it broke off, "" when nothing raised), scaled (float16 weights whose loss never fell: scale and losses of the same
        steps with the recommended loss scale; else None).
    curvature: `stabdiag.probe.curvature.sharpness` of the first seed in float32, `step` it was taken at; {} when not measured.
    precisions_chosen: whether the request names precisions other than the default ones.
    interrupted: True when Ctrl-C ended it; what is there stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch import nn

from stabdiag.evidence.numbers.loss_scale import FIRST_SCALE, recommended_scale
from stabdiag.probe.birth import birth
from stabdiag.probe.curvature import sharpness
from stabdiag.probe.optimizer import choose
from stabdiag.probe.recorder import Recorder, Stage, nonfinite_buffers
from stabdiag.probe.training import Trainer
from stabdiag.settings.request import DEFAULT_PRECISIONS, ScanRequest
from stabdiag.subject.frames import whole
from stabdiag.trace import Trace

SEEDS = 3
CURVATURE_AT = 5  # steps: before that Adam's second moment is that of one gradient, and its inverse says nothing
SCALED = "amp-float16"  # autocast to float16 is trained with a GradScaler, everything else without

Progress = Callable[[str, float], None]


def run(recorder: Recorder, trace: Trace, request: ScanRequest, progress: Progress) -> None:
    """Take `request.steps` steps in each precision and seed, then measure the curvature."""
    base = trace.run("float32")
    if request.steps <= 0 or base is None or base.loss is None:
        return
    if not any(p.requires_grad for p in recorder.subject.model.parameters()):
        trace.unseen.append("training steps: the model has no parameter to train")
        return
    found: dict[str, Any] = {"steps": request.steps, "clip": request.clip, "rows": [], "runs": [], "curvature": {}}
    found |= {"interrupted": False, "precisions_chosen": request.precisions != list(DEFAULT_PRECISIONS)}
    trace.experiments.training = found
    names = [p for p in dict.fromkeys(("float32", *request.precisions)) if trace.run(p) is not None]
    models = _models(recorder, request)
    planned = request.steps * len(names) * len(models)

    def show(what: str) -> None:
        progress(what, len(found["rows"]) / planned)

    try:
        for seed, model in models:
            for name in names:
                facts = {"precision": name, "seed": seed, "mode": "", "taken": 0, "broke": "", "birth": None, "error": ""}
                facts |= {"clipped_to_zero": 0, "poisoned_buffers": [], "first_scale_that_works": None, "structural": None}
                facts["scaled"] = None
                found["runs"].append(facts)
                try:
                    _train(recorder, trace, request, found, facts, model, show)
                except Exception as error:
                    facts["error"] = whole(error, 300)
        _curvature(recorder, request, found)
    except KeyboardInterrupt:
        found["interrupted"] = True
    finally:
        trace.spent["training steps"] = float(len(found["rows"]))


def _models(recorder: Recorder, request: ScanRequest) -> list[tuple[int, nn.Module]]:
    """The model as built and, where it can be built again, with other seeds; without that every seed would be the same run."""
    subject = recorder.subject
    seeds = range(1, request.seeds or SEEDS) if subject.rebuild is not None else ()
    return [(0, subject.model), *((k, subject.rebuild(k)) for k in seeds if subject.rebuild is not None)]


def _train(
    recorder: Recorder,
    trace: Trace,
    request: ScanRequest,
    found: dict[str, Any],
    facts: dict[str, Any],
    model: nn.Module,
    show: Callable[[str], None],
) -> None:
    name, seed = facts["precision"], facts["seed"]
    began = time.monotonic()
    with recorder.stage(name, model=model) as stage:
        before = nonfinite_buffers(model)
        trainer = _trainer(recorder, stage, request)
        found.setdefault("optimizer", trainer.chosen.facts)
        facts["mode"] = stage.mode
        for k in range(request.steps):
            done = trainer.step()
            row = {"precision": name, "seed": seed, "step": k, "loss": done.loss, "gradient_norm": done.gradient_norm}
            found["rows"].append(row | {"scale": done.scale, "skipped": done.skipped})
            facts["taken"], facts["broke"] = k + 1, done.broke
            facts["clipped_to_zero"] += done.clipped_to_zero
            rate = (k + 1) / max(time.monotonic() - began, 1e-9)
            show(f"training {name}, seed {seed}: step {k + 1} of {request.steps}, {rate:.1f} steps/s")
            if done.broke and not done.skipped:
                break
        facts["poisoned_buffers"] = sorted(nonfinite_buffers(model) - before)
        if name == "float32" and seed == 0 and not facts["broke"] and request.steps > 2:
            trainer.chosen.zero_grad(model)
            trace.runs.append(recorder.record(stage, step=request.steps))
    accepted = [s.scale for s in trainer.steps if not s.skipped]
    facts["first_scale_that_works"] = accepted[0] if accepted and trainer.scaling else None
    skipped = [k for k, s in enumerate(trainer.steps) if s.skipped]
    if skipped:
        facts["birth"] = _replayed(recorder, trace, request, name, model, skipped[-1], scale=1.0)
        facts["structural"] = facts["birth"] is not None
    if facts["birth"] is None and (skipped or facts["broke"]):
        at = skipped[-1] if skipped else facts["taken"] - 1
        facts["birth"] = _replayed(recorder, trace, request, name, model, at, scale=trainer.steps[at].scale)
    losses = [s.loss for s in trainer.steps]
    if name == "float16" and not facts["broke"] and min(losses) >= losses[0] and (scale := recommended_scale(trace, name)) > 1:
        with recorder.stage(name, model=model) as stage:
            trainer = _trainer(recorder, stage, request)
            trainer.scale = scale
            facts["scaled"] = {"scale": scale, "losses": [trainer.step().loss for _ in range(request.steps)]}


def _trainer(recorder: Recorder, stage: Stage, request: ScanRequest) -> Trainer:
    chosen = choose(recorder.subject, stage.model, request)
    half = stage.precision.name.removeprefix("amp-") == "float16"
    scaling = stage.precision.name == SCALED or (half and request.loss_scale is not None)
    scale = (request.loss_scale or FIRST_SCALE) if scaling else 1.0
    return Trainer(recorder, stage, chosen, request.clip, request.clip_value, request.warm_up, scaling, scale)


def _replayed(
    recorder: Recorder, trace: Trace, request: ScanRequest, name: str, model: nn.Module, step: int, scale: float
) -> dict[str, Any] | None:
    """Take the steps before `step` again and record that one in full. Nothing random differs, so no state has to be kept."""
    with recorder.stage(name, model=model) as stage:
        trainer = _trainer(recorder, stage, request)
        for _ in range(step):
            trainer.step()
        trainer.scale = scale
        return birth(trainer, trace, step)


def _curvature(recorder: Recorder, request: ScanRequest, found: dict[str, Any]) -> None:
    with recorder.stage("float32") as stage:
        trainer = _trainer(recorder, stage, request)
        wanted = min(CURVATURE_AT, request.steps) if trainer.chosen.facts["adaptive"] else 0
        for _ in range(wanted):
            if trainer.step().broke:
                return
        found["curvature"] = {"step": wanted} | sharpness(trainer)
