"""`stabdiag.watch`: a training that runs, watched; a step that goes wrong is held, explained and kept.

Between sampled steps one finiteness test is made per step, on the gradients when the optimizer is about to step. With a
GradScaler that is the scaler's own: its optimizer does not step when a gradient is not finite.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from math import isfinite, log10
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stabdiag import __version__
from stabdiag.errors import UserError, one_of
from stabdiag.finding import Finding, Severity
from stabdiag.judging.report import Report, SubjectReport
from stabdiag.live import capsule, examination
from stabdiag.live.culprit import Case, Culprit, Kind, culprit
from stabdiag.live.following import Following, paths_of, wrapped
from stabdiag.live.history import History, Step
from stabdiag.live.journal import Journal
from stabdiag.live.kept import KeptWeights
from stabdiag.live.optimizer_step import born, may_divide_by_zero
from stabdiag.live.player import Player
from stabdiag.live.program import Program, RandomState
from stabdiag.live.tape import LossMode, Tape
from stabdiag.live.trends import Trends, measured, scale_bits
from stabdiag.probe.training import norm
from stabdiag.recording.source import callers, shown
from stabdiag.reports import text
from stabdiag.rules import sd807_loss_spike
from stabdiag.scanning.pipeline import report_on
from stabdiag.scanning.session import settle
from stabdiag.settings.request import ScanRequest
from stabdiag.trace import Location, SubjectFacts, Trace, containment

OnTrip = Literal["raise", "skip", "warn"]
EVERY_SPIKE = 10  # steps between two reruns that ask whether a spike is its sample's doing
SAMPLE = 4096  # weights per tensor of which the size of an update is taken


class TrippedError(RuntimeError):
    """A step went wrong. `report` holds the findings, `capsule` the folder that replays it (None when it could not be written)."""

    def __init__(self, message: str, report: Report, capsule: Path | None) -> None:
        super().__init__(message)
        self.report = report
        self.capsule = capsule


def watch(
    model: nn.Module | Sequence[nn.Module],
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    scaler: Any = None,
    every: int = 200,
    directory: str | PathLike[str] = "stabdiag/",
    on_trip: OnTrip = "raise",
    capsules: int = 3,
    log: Callable[[int, dict[str, float]], None] | None = None,
) -> Watcher:
    """Watch a training until `close()`, or until model and optimizer are gone.

    Args:
        model: what is trained; several for a GAN.
        optimizer: what steps it; several for a GAN. One that takes a closure (LBFGS) is followed but cannot be held.
        scaler: the `torch.amp.GradScaler`, where there is one.
        every: of so many steps one is recorded in full and judged by the rules.
        directory: where `steps.jsonl`, capsules and the reports go.
        on_trip: "raise" a TrippedError before the weights are touched, "skip" the step, or only "warn".
        capsules: how many of the newest are kept.
        log: called with the step and its scalars whenever there are any, see `stabdiag.integrations.loggers`.

    Returns:
        A Watcher. `with recorder.step(batch):` around the body of the loop shows it the loss; without it, everything else works.

    Raises:
        UserError: an option that cannot be.
    """
    one_of("on_trip", on_trip, ("raise", "skip", "warn"))
    if every < 1 or capsules < 0:
        raise UserError(f"watch() was given every={every}, capsules={capsules}; expected every ≥ 1 and capsules ≥ 0")
    models = list(model) if isinstance(model, (list, tuple)) else [model]
    optimizers = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]
    return Watcher(models, optimizers, scaler, every, Path(directory), on_trip, capsules, log)


class Watcher:
    """What `watch` returns. Attribute `number` is the number of the step, from 0."""

    def __init__(
        self,
        models: list[nn.Module],
        optimizers: list[torch.optim.Optimizer],
        scaler: Any,
        every: int,
        directory: Path,
        on_trip: OnTrip,
        capsules: int,
        log: Callable[[int, dict[str, float]], None] | None,
    ) -> None:
        roots = [wrapped(model) for model in models]
        self.root = roots[0] if len(roots) == 1 else nn.ModuleList(roots)
        self.number = 0
        self._scaler, self._every, self._on_trip, self._capsules, self._log = scaler, every, on_trip, capsules, log
        self._optimizers = optimizers
        paths = {}
        for model in models:
            paths |= paths_of(model, wrapped(model))
        if len(roots) > 1:
            paths |= {key: f"{k}.{path}".rstrip(".") for k, m in enumerate(models) for key, path in paths_of(m, roots[k]).items()}
        self._compiled = _compiled(models, paths)
        self._names = {id(p): name for name, p in (*self.root.named_parameters(), *self.root.named_buffers())}
        self._facts = _facts(self.root, models)
        self._moving: list[str] | None = None
        self._tape: Tape | None = None
        self._mode: LossMode | None = None
        self._aside = False
        self._random: RandomState | None = None
        self._previous: Program | None = None
        self._pending: Program | None = None
        self._stepped: set[int] = set()
        self._busy = False
        self._held: list[tuple[nn.Parameter, Tensor | None]] = []
        self._versions: dict[str, int] = {}
        self._scale = float(scaler.get_scale()) if scaler is not None else 1.0
        self._checked = -EVERY_SPIKE
        self._wrong_at = -2
        self._accepted: set[str] | None = None
        self._suspects: set[str] = set()
        self._again = False
        self._norms: dict[str, float] = {}
        self._ratios: dict[str, float] = {}
        self._last: SubjectReport | None = None
        self._tripped: list[SubjectReport] = []
        self._places: dict[str, Location | None] = {}
        self._before_update: dict[str, Tensor] | None = None
        self.history, self.trends, self._journal = History(), Trends(), Journal(directory)
        self._kept = KeptWeights(directory / "weights-before-the-last-update")
        self._guarded = [optimizer for optimizer in optimizers if may_divide_by_zero(optimizer)]
        self._following = Following(self, paths)
        self._handles = [
            handle
            for optimizer in optimizers
            for handle in (
                optimizer.register_step_pre_hook(self._before_step),
                optimizer.register_step_post_hook(self._after_step),
            )
        ]

    # -- the author's loop ------------------------------------------------------------------------------------------------

    @contextmanager
    def step(self, batch: Any = None) -> Iterator[Watcher]:
        """The body of one step. Inside it the lines between the model and `backward` are seen, which shows the loss.

        `batch` is not needed: what the model is called with is what counts.
        """
        if self._following.close.alive is False:
            yield self
            return
        if self._tape is None:
            self._begin(keep_gradients=False)
        self._mode = LossMode(lambda: self._tape)
        try:
            with self._mode:
                yield self
        except BaseException:
            self._tape = None
            self._stepped.clear()
            raise
        finally:
            self._mode = None
        if self._stepped or not self._accumulates():
            self._finish()

    def close(self) -> Report:
        """Stop watching and write the reports. Can be called again; returns the report."""
        if self._pending is not None:
            self._judge_pending()
        self._following.close()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._tape = None
        self._kept.forget()
        report = self.report()
        if report.runs:
            self._journal.reports(report)
        return report

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def report(self) -> Report:
        """The last sampled step with the forecasts, then every trip."""
        runs = list(self._tripped)
        if self._last is not None:
            forecasts = list(self.trends.forecasts(self._precision, self._places))
            for finding in forecasts:
                finding.path = self._facts.path
            own = [f for f in self._last.findings if f not in forecasts]
            self._last.findings = own + forecasts
            runs.insert(0, self._last)
        return Report(__version__, runs)

    # -- following (called by the hooks) ------------------------------------------------------------------------------------

    def entered(self, path: str) -> None:
        """An outermost call begins."""
        if self._busy:
            return
        if self._mode is None and self._stepped and len(self._stepped) == len(self._optimizers):
            self._finish()
        if self._tape is None:
            self._begin(keep_gradients=self._mode is None)
        tape = self._tape
        assert tape is not None
        if not tape.program.calls:
            self._keep_buffers(tape.program)
            kind = tape.program.device = next((p.device.type for p in self.root.parameters()), "cpu")
            tape.program.autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        self._random = RandomState.now()
        self._aside = self._mode is not None and self._mode.leave()

    def left(self, path: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """It ended."""
        if self._busy:
            return
        if self._aside and self._mode is not None:
            self._mode.come_back()
        self._aside = False
        if self._tape is not None and output is not None and self._random is not None:
            self._tape.module(path, wrapped(module), args, kwargs, output, self._random)

    def _begin(self, keep_gradients: bool) -> None:
        if self._pending is not None:
            self._judge_pending()
        self._tape = Tape(self._names, keep_gradients)

    def _keep_buffers(self, program: Program) -> None:
        """Copy the buffers that forwards move (running statistics); which ones these are, the first step tells."""
        buffers = dict(self.root.named_buffers())
        moving = buffers if self._moving is None else {name: buffers[name] for name in self._moving if name in buffers}
        program.buffers = {name: buffer.detach().clone() for name, buffer in moving.items()}

    def _accumulates(self) -> bool:
        """Whether a body that took no step only accumulates gradients, rather than having been skipped by the scaler."""
        if self._tape is None or not self._tape.program.goals:
            return False
        return self._scaler is None or float(self._scaler.get_scale()) >= self._scale

    def _finish(self) -> None:
        """The end of a step."""
        program = self._tape.program if self._tape is not None else None
        self._tape = None
        skipped = not self._stepped
        self._stepped.clear()
        if program is None or not program.calls:
            return
        if self._moving is None:
            now = dict(self.root.named_buffers())
            self._moving = [name for name, held in program.buffers.items() if name in now and not _same(held, now[name])]
        if self._scaler is not None and skipped:
            self._skipped(program)
        self._previous = program
        if self.number % self._every == 0 or self._again:
            self._pending, self._again = program, False
        self.number += 1

    def _skipped(self, program: Program) -> None:
        self.history.add(Step(self.number, None, None, self._rate, float(self._scaler.get_scale()), skipped=True))
        collapsed = self.history.collapsed()
        player = self._player(program)
        self._scale = float(self._scaler.get_scale())
        if collapsed:
            self.history = History()
            self._trip("loss scale collapse", Case(player, compiled=self._fails_compiled(player)), None, None)

    # -- the optimizer ------------------------------------------------------------------------------------------------------

    @property
    def _rate(self) -> float:
        return float(self._optimizers[0].param_groups[0]["lr"])

    @property
    def _precision(self) -> str:
        return self._last.precisions[0].name if self._last is not None and self._last.precisions else "float32"

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._busy or self._tape is None:
            return
        if id(optimizer) in self._stepped and self._mode is None:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        size = norm(gradients)
        if self._scaler is not None and self._tape.program.device == "cpu":
            self._scale = float(self._scaler.get_scale())
        loss = self._loss()
        rate = float(optimizer.param_groups[0]["lr"])
        kind = self._wrong(loss, size)
        if kind is not None:
            if self._wrong_at == self.number - 1:  # the step before went wrong, too, and was explained
                self._journal.line("still wrong", step=self.number, kind=kind)
            else:
                case = self._case(self._tape.program, self.history.loss_limit() if kind == "loss spike" else None)
                self._trip(kind, case, loss, size, optimizer)
            self._wrong_at = self.number
            if self._on_trip == "skip":
                self._held = [(p, p.grad) for p in parameters]
                for parameter in parameters:
                    parameter.grad = None
            return
        if self.history.unusual_update(rate, size) or optimizer in self._guarded:
            self._kept.keep(self.root)
        else:
            self._kept.drop()
        self.history.add(Step(self.number, loss, size, rate, self._scale))
        if self.number % self._every == 0:
            self._before_update = {name: _part(p) for name, p in self.root.named_parameters()}

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._busy:
            return
        for parameter, gradient in self._held:
            parameter.grad = gradient
        held, self._held = bool(self._held), []
        self._stepped.add(id(optimizer))
        if not held and optimizer in self._guarded and self._tape is not None:
            self._look_at_weights(optimizer)
        self._versions = {name: p._version for name, p in self.root.named_parameters()}
        if self._before_update is not None:
            self._update_ratios(self._before_update)
            self._before_update = None
        if self._mode is None and len(self._stepped) == len(self._optimizers):
            self._finish()

    def _look_at_weights(self, optimizer: torch.optim.Optimizer) -> None:
        """Of an optimizer that may divide by zero: whether the step left the weights finite. If not, it is undone."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        before = self._kept.read()
        if isfinite(norm(parameters)) or before is None or self._tape is None:
            return
        found = born(optimizer, self.root, before)
        at = callers(1)
        with torch.no_grad():
            for name, parameter in self.root.named_parameters():
                parameter.copy_(before[name])
        again, self._wrong_at = self._wrong_at == self.number - 1, self.number
        if again:
            self._journal.line("still wrong", step=self.number, kind="weights")
            return
        case, loss = self._case(self._tape.program, None), self._loss()
        size = norm([p.grad for p in parameters if p.grad is not None])
        what = "weights not finite after the optimizer's step"
        self._trip(what, case, loss, size, optimizer, found, asdict(at[0]) if at else None)

    def _loss(self) -> float | None:
        """The loss of this step, unscaled; None where it was not seen."""
        assert self._tape is not None
        goals = self._tape.program.goals
        if goals and not self._tape.program.gaps:
            return sum(float(goal.loss) / (self._scale if goal.scaled else 1.0) for goal in goals)
        own = self._tape.own_losses
        return sum(float(loss) for loss in own) if own else None

    def _wrong(self, loss: float | None, gradient_norm: float) -> str | None:
        if loss is not None and not isfinite(loss):
            return "loss not finite"
        if not isfinite(gradient_norm):
            return "gradient not finite"
        limit = self.history.loss_limit()
        if loss is None or limit is None or loss <= limit or self.number - self._checked < EVERY_SPIKE:
            return None
        self._checked = self.number
        by_sample = self._previous is None or self._previous.overwritten
        if not by_sample and self._previous is not None:
            before = self._playing(lambda: self._player(self._previous).outcome())  # type: ignore[arg-type]
            by_sample = bool(before.error) or before.loss <= limit
        if by_sample:
            self._journal.line("spike", step=self.number, loss=loss, limit=limit, explained="by its sample")
            return None
        return "loss spike"

    # -- judging ------------------------------------------------------------------------------------------------------------

    def _player(self, program: Program) -> Player:
        return Player(program, self.root, self._facts, self._scale)

    def _playing(self, play: Callable[[], Any]) -> Any:
        """Run something of ours: the hooks are deaf, gradients stay the author's."""
        self._busy = True
        mode = self._mode is not None and self._mode.leave()
        try:
            with torch.enable_grad(), torch.autocast(self._device, enabled=False, cache_enabled=False):
                return play()
        finally:
            self._busy = False
            if mode and self._mode is not None:
                self._mode.come_back()

    @property
    def _device(self) -> str:
        return next((p.device.type for p in self.root.parameters()), "cpu")

    def _judge_pending(self) -> None:
        """Judge the step that was chosen to be recorded, once the author's gradients of it are gone."""
        program, self._pending = self._pending, None
        if program is None or program.overwritten:
            return
        trace = self._playing(lambda: examination.sampled(self._player(program)))
        step = self.number - 1
        run = trace.runs[0]
        report = self._report(trace, [run.precision])
        self._last = report
        values = measured(run) | {("update ratio", name): log10(r) for name, r in self._ratios.items() if r > 0}
        if self._scaler is not None:
            values["loss scale", ""] = scale_bits(self._scale)
        self.trends.add(step, values)
        for op in run.phase("forward", "loss"):
            self._places.setdefault(op.module or op.layer or op.name, op.location)
        self._norms = {p.name: p.gradient.rms for p in run.parameters if p.gradient is not None}
        errors = {f.fingerprint: f for f in report.findings if f.severity is Severity.ERROR and f.status == "new"}
        forecasts = [f.message for f in self.trends.forecasts(run.precision, self._places)]
        scalars = _scalars(values, self.history.steps[-1] if self.history.steps else None, report.findings)
        self._journal.line(
            "sample",
            step=step,
            **scalars,
            findings=[f"{f.severity.value}[{f.code}] {f.name}: {f.message}" for f in report.findings],
            forecasts=forecasts,
        )
        if self._log is not None:
            self._log(step, scalars)
        self._compare_with_earlier(trace, errors, program, step)

    def _compare_with_earlier(self, trace: Trace, errors: dict[str, Finding], program: Program, step: int) -> None:
        """An error that was not there when watching began is confirmed at the next step; then it trips."""
        if self._accepted is None:
            self._accepted = set(errors)
            return
        new = {key: finding for key, finding in errors.items() if key not in self._accepted}
        confirmed = [finding for key, finding in new.items() if key in self._suspects]
        self._again = bool(new) and not confirmed
        self._suspects = set(new)
        if confirmed:
            self._accepted |= set(new)
            self._trip_on_finding(confirmed[0], program, step)

    def _trip_on_finding(self, finding: Finding, program: Program, step: int) -> None:
        report = self._last
        assert report is not None
        finding.evidence |= {"step": step, "culprit": {"kind": Kind.MODEL.value}}
        report.findings.remove(finding)
        report.findings.insert(0, finding)
        case = Case(self._player(program))
        self._conclude(report, case, {"kind": f"{finding.name} since the training began", "step": step})

    def _report(self, trace: Trace, precisions: list[str]) -> SubjectReport:
        request = ScanRequest(self._facts.path, precisions=precisions)
        report = Report(__version__, [report_on(trace, request)])
        settle(report, [request])
        return report.runs[0]

    def _update_ratios(self, before: dict[str, Tensor]) -> None:
        now = dict(self.root.named_parameters())
        self._ratios = {}
        for name, weight in before.items():
            size = float(weight.double().norm())
            if size > 0:
                self._ratios[name] = float((_part(now[name]) - weight).double().norm()) / size

    # -- a trip ---------------------------------------------------------------------------------------------------------------

    def _case(self, program: Program, limit: float | None) -> Case:
        player = self._player(program)
        previous = self._previous
        usable = previous is not None and not previous.overwritten and previous.seen == program.seen
        written = [n for n, p in self.root.named_parameters() if self._versions.get(n, p._version) != p._version]
        steps = self.history.steps
        rate = steps[-1].rate if steps else None
        before = self._kept.read()
        earlier = self._player(previous) if usable and previous is not None else None
        return Case(player, earlier, before, rate, limit, self._fails_compiled(player), written)

    def _fails_compiled(self, player: Player) -> bool | None:
        """Whether the step is fine when it is run again as compiled; None where nothing is compiled."""
        if not self._compiled:
            return None
        compiled = Player(player.program, player.model, player.facts, player.scale, compiled=self._compiled)
        return bool(self._playing(compiled.outcome).finite)

    def _trip(
        self,
        kind: str,
        case: Case,
        loss: float | None,
        gradient_norm: float | None,
        optimizer: torch.optim.Optimizer | None = None,
        optimizers: Culprit | None = None,
        location: dict[str, Any] | None = None,
    ) -> None:
        facts: dict[str, Any] = {"kind": kind, "step": self.number, "loss": loss, "gradient_norm": gradient_norm}
        facts["location"] = location
        facts["limit"] = case.limit
        facts["optimizer"] = self._optimizers.index(optimizer) if optimizer is not None else None
        report = self._playing(lambda: self._explained(case, facts, optimizers))
        self._conclude(report, case, facts)

    def _explained(self, case: Case, facts: dict[str, Any], optimizers: Culprit | None) -> SubjectReport:
        """The report of a trip. A step that cannot be run again, and a fault of ours, still stop the training."""
        overwritten = case.player.program.overwritten
        if overwritten:
            return unexplained(case, facts, f"the step cannot be run again: `{overwritten[0]}` was overwritten after the model read it")
        try:
            return explain(case, facts, optimizers, self._norms)
        except Exception as error:
            if containment.STRICT:
                raise
            return unexplained(case, facts, f"the step could not be run again ({type(error).__name__}: {error})")

    def _conclude(self, report: SubjectReport, case: Case, facts: dict[str, Any]) -> None:
        """Print it, keep it, and raise if that is asked for."""
        self._tripped.append(report)
        finding = report.findings[0]
        self._accepted = (self._accepted or set()) | {f.fingerprint for f in report.findings}
        place: Path | None = None
        said = f"stabdiag: {facts['kind']} at step {facts['step']:,}"
        try:
            settings = facts | {"finding": finding.code, "culprit": finding.evidence["culprit"]["kind"]}
            settings["model"] = _model_file(self.root)
            settings["report"] = [f"{f.code} {f.message}" for f in (self._last.findings if self._last else [])]
            if self._capsules:
                place = capsule.write(self._journal.directory, case, settings, self._optimizers, self._capsules)
                said += f"; `stabdiag replay {place}` runs it again ({capsule.size(place) / 1e6:.1f} MB)"
        except UserError as error:
            said += f"; no capsule: {error}"
        whole = Report(__version__, [report])
        print(f"\n{text.render(whole)}{said}", file=sys.stderr)
        self._journal.line(
            "trip",
            step=facts["step"],
            kind=facts["kind"],
            finding=f"{finding.severity.value}[{finding.code}] {finding.message}",
            culprit=finding.evidence["culprit"]["kind"],
            path=finding.location.path if finding.location is not None else None,
            line=finding.location.line if finding.location is not None else None,
            capsule=str(place) if place is not None else None,
        )
        if self._on_trip == "raise":
            self.close()
            raise TrippedError(f"{facts['kind']} at step {facts['step']}: {finding.message}", whole, place)


def explain(case: Case, facts: dict[str, Any], optimizers: Culprit | None, norms: dict[str, float]) -> SubjectReport:
    """The report of a trip: who did it, and the step recorded in full and judged.

    Args:
        optimizers: what the optimizer did, where the weights broke in its step; norms: gradient per parameter when it was last
            recorded.
    """
    case.player = examination.first_wrong(case.player)
    found = optimizers or culprit(case)
    trace = examination.examined(case.player)
    grown = _grown(trace, norms)
    request = ScanRequest(case.player.facts.path, precisions=[p for p in trace.precisions if p != "float64"])
    extra = {key: facts[key] for key in ("kind", "step", "loss", "gradient_norm", "limit", "location")}
    where = {key: found.evidence[key] for key in ("module", "op", "phase") if key in found.evidence}
    report = examination.report(trace, request, case, found, extra | {"grown": grown} | where)
    whole = Report(__version__, [report])
    settle(whole, [request])
    main = next(f for f in report.findings if "culprit" in f.evidence)
    report.findings.remove(main)
    report.findings.insert(0, main)
    return report


def unexplained(case: Case, facts: dict[str, Any], why: str) -> SubjectReport:
    """The report of a trip that nothing more is known of than that it happened."""
    extra = {key: facts[key] for key in ("kind", "step", "loss", "gradient_norm", "limit")}
    trace = Trace(case.player.facts)
    finding = sd807_loss_spike.trip(trace, extra | {"culprit": Kind.MODEL.value, "detail": why}, examination.place_of(case.player))
    finding.evidence["culprit"] = {"kind": Kind.MODEL.value}
    finding.path = case.player.facts.path
    return SubjectReport(case.player.facts, findings=[finding])


def _grown(trace: Trace, norms: dict[str, float]) -> tuple[str, float] | None:
    """The parameter whose gradient grew most since it was last recorded."""
    run = trace.runs[-1] if trace.runs else None
    growth = [
        (p.gradient.rms / norms[p.name], p.name)
        for p in (run.parameters if run is not None else ())
        if p.gradient is not None and norms.get(p.name) and isfinite(p.gradient.rms)
    ]
    factor, name = max(growth, default=(0.0, ""))
    return (name, factor) if factor > 2 else None


def _scalars(values: dict[Any, float], step: Step | None, findings: list[Finding]) -> dict[str, float]:
    """What a logger plots."""
    scalars = {f"{name}/{where}" if where else name: value for (name, where), value in values.items()}
    if step is not None:
        numbers = {"loss": step.loss, "gradient norm": step.gradient_norm, "rate": step.rate, "scale": step.scale}
        scalars |= {key: value for key, value in numbers.items() if value is not None}
    for finding in findings:
        scalars[f"findings/{finding.name}"] = scalars.get(f"findings/{finding.name}", 0.0) + 1.0
    return scalars


def _compiled(models: list[nn.Module], paths: dict[int, str]) -> dict[str, nn.Module]:
    """Compiled modules by the path of what they wrap."""
    return {
        paths[id(m)]: m
        for model in models
        for m in model.modules()
        if id(m) in paths and (type(m).__name__ == "OptimizedModule" or getattr(m, "_compiled_call_impl", None) is not None)
    }


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a, b))


def _part(parameter: Tensor) -> Tensor:
    flat = parameter.detach().reshape(-1)
    return flat[:: 1 + (flat.numel() - 1) // SAMPLE].clone() if flat.numel() else flat.clone()


def _model_file(root: nn.Module) -> dict[str, Any]:
    """The file, class and plain constructor arguments of a model, by which `stabdiag replay` builds it again."""
    kind = type(root)
    try:
        file = inspect.getsourcefile(kind)
    except (TypeError, OSError):
        file = None
    arguments = {}
    for name in inspect.signature(kind.__init__).parameters:
        value = getattr(root, name, None) if name != "self" else None
        if isinstance(value, bool | int | float | str):
            arguments[name] = value
    return {"file": file, "name": kind.__qualname__, "arguments": arguments}


def _facts(root: nn.Module, models: list[nn.Module]) -> SubjectFacts:
    here = callers(1)
    file = _model_file(root)["file"] if len(models) == 1 else None
    library = type(root).__module__.split(".")[0] in ("torch", "transformers", "lightning")
    path = shown(file) if file and not library else here[0].path if here else type(root).__name__
    return SubjectFacts(
        path=path,
        name=" and ".join(type(wrapped(model)).__name__ for model in models),
        parameters=sum(p.numel() for p in root.parameters()),
        inputs="the batch of the training",
        objective="the loss of the training",
        declared=["inputs", "loss"],
    )
