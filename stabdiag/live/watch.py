"""`stabdiag.watch`: a training that runs, watched; a step that goes wrong is held, explained and kept.

Between sampled steps one finiteness test is made per step, on the gradients when the optimizer is about to step. With a
GradScaler that is the scaler's own: its optimizer does not step when a gradient is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from stabdiag import __version__
from stabdiag.errors import UserError, one_of
from stabdiag.judging.report import Report
from stabdiag.live.culprit import Case, Kind
from stabdiag.live.examination import SPIKE
from stabdiag.live.following import Following, wrapped
from stabdiag.live.history import History, Step
from stabdiag.live.journal import Journal
from stabdiag.live.kept import KeptWeights
from stabdiag.live.optimizer_step import born, may_divide_by_zero
from stabdiag.live.player import Player
from stabdiag.live.program import Program, RandomState
from stabdiag.live.sampling import Log, Samples
from stabdiag.live.tape import LossMode, Tape
from stabdiag.live.tripping import Trip, TrippedError, Trips, explained
from stabdiag.live.watched import Watched
from stabdiag.probe.training import norm
from stabdiag.recording.source import callers

OnTrip = Literal["raise", "skip", "warn"]
EVERY_SPIKE = 10  # steps between two reruns that ask whether a spike is its sample's doing

T = TypeVar("T")
__all__ = ["TrippedError", "Watcher", "watch"]


def watch(
    model: nn.Module | Sequence[nn.Module],
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    scaler: Any = None,
    every: int = 200,
    directory: str | PathLike[str] = "stabdiag/",
    on_trip: OnTrip = "raise",
    capsules: int = 3,
    log: Log | None = None,
) -> Watcher:
    """Watch a training until `close()`, or until model and optimizer are gone.

    Args:
        model: what is trained; several for a GAN.
        optimizer: what steps it; several for a GAN.
        scaler: the `torch.amp.GradScaler`, where there is one.
        every: of so many steps one is recorded in full and judged by the rules.
        directory: where `steps.jsonl`, capsules and the reports go.
        on_trip: "raise" a TrippedError before the weights are touched, "skip" the step, or only "warn".
        capsules: how many of the newest are kept.
        log: called with the step and its scalars whenever there are any, see `stabdiag.integrations.loggers`.

    Returns:
        A Watcher. `with recorder.step(batch):` around the body of the loop shows it the loss; all else works without it.

    Raises:
        UserError: an option that cannot be.
    """
    one_of("on_trip", on_trip, ("raise", "skip", "warn"))
    if every < 1 or capsules < 0:
        raise UserError(f"watch() was given every={every}, capsules={capsules}; expected every ≥ 1 and capsules ≥ 0")
    models = [model] if isinstance(model, nn.Module) else list(model)
    optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)
    journal = Journal(Path(directory))
    watched = Watched(models)
    samples = Samples(watched.facts, journal, log)
    return Watcher(watched, optimizers, scaler, every, on_trip, samples, Trips(watched, optimizers, journal, capsules))


class Watcher:
    """What `watch` returns. Attributes: `number` of the step, from 0; `history` of the last ones."""

    def __init__(
        self,
        watched: Watched,
        optimizers: list[torch.optim.Optimizer],
        scaler: Any,
        every: int,
        on_trip: OnTrip,
        samples: Samples,
        trips: Trips,
    ) -> None:
        self.number, self.history = 0, History()
        self._watched, self._optimizers, self._scaler = watched, optimizers, scaler
        self._every, self._on_trip = every, on_trip
        self._samples, self._trips, self._journal = samples, trips, trips.journal
        self._scale = float(scaler.get_scale()) if scaler is not None else 1.0
        self._tape: Tape | None = None  # of the step that is running
        self._mode: LossMode | None = None  # inside `with step()`
        self._aside = False
        self._random: RandomState | None = None
        self._previous: Program | None = None  # the step before, which went well
        self._pending: Program | None = None  # chosen to be recorded
        self._stepped: set[int] = set()  # optimizers
        self._held: list[tuple[nn.Parameter, Tensor | None]] = []
        self._versions: dict[str, int] = {}
        self._busy = False  # something of ours is running
        self._asked_at, self._wrong_at = -EVERY_SPIKE, -2
        self._kept = KeptWeights(trips.journal.directory / "weights-before-the-last-update")
        self._guarded = [optimizer for optimizer in optimizers if may_divide_by_zero(optimizer)]
        self._following = Following(self, watched.paths)
        # The optimizer holds the watcher: nobody else has to.
        self._handles = [optimizer.register_step_pre_hook(self._before_step) for optimizer in optimizers]
        self._handles += [optimizer.register_step_post_hook(self._after_step) for optimizer in optimizers]

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
        last = self._samples.last
        sampled = [replace(last, findings=[*last.findings, *self._samples.forecasts()])] if last is not None else []
        return Report(__version__, [*sampled, *self._trips.reports])

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
            self._watched.keep_buffers(tape.program)
            kind = tape.program.device = self._watched.device
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
        self._tape = Tape(self._watched.names, keep_gradients)

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
        self._watched.learn_what_moves(program)
        if self._scaler is not None and skipped:
            self._skipped(program)
        self._previous = program
        if self.number % self._every == 0 or self._samples.unconfirmed:
            self._pending = program
        self.number += 1

    def _skipped(self, program: Program) -> None:
        """The scaler left the step out."""
        now, rate = float(self._scaler.get_scale()), float(self._optimizers[0].param_groups[0]["lr"])
        self.history.add(Step(self.number, None, None, rate, now, skipped=True))
        case = self._case(program) if self.history.collapsed() else None
        self._scale = now
        if case is not None:
            again, self._wrong_at = self._wrong_at == self.number - 1, self.number
            if again:
                self._journal.line("still wrong", step=self.number, kind="loss scale collapse")
                return
            self._trip(Trip("loss scale collapse", self.number), case)

    # -- the optimizer ------------------------------------------------------------------------------------------------------

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        """Look at the gradients, at once or behind the closure that makes them."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            return self._look_at_gradients(optimizer)

        def looked_at() -> Any:
            result = closure()
            self._look_at_gradients(optimizer)
            return result

        return (args[:1], kwargs | {"closure": looked_at})

    def _look_at_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimizer step, or hold it."""
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
                limit = self.history.loss_limit() if kind == SPIKE else None
                trip = Trip(kind, self.number, loss, size, limit, self._optimizers.index(optimizer))
                self._trip(trip, self._case(self._tape.program, limit))
            self._wrong_at = self.number
            if self._on_trip == "skip":
                self._held = [(p, p.grad) for p in parameters]
                for parameter in parameters:
                    parameter.grad = None
            return
        if self.history.unusual_update(rate, size) or optimizer in self._guarded:
            self._kept.keep(self._watched.root)
        else:
            self._kept.drop()
        self.history.add(Step(self.number, loss, size, rate, self._scale))
        if self.number % self._every == 0:
            self._samples.before_update(self._watched.root)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._busy:
            return
        for parameter, gradient in self._held:
            parameter.grad = gradient
        held, self._held = bool(self._held), []
        self._stepped.add(id(optimizer))
        if not held and optimizer in self._guarded and self._tape is not None:
            self._look_at_weights(optimizer)
        self._versions = self._watched.versions()
        if self.number % self._every == 0:
            self._samples.after_update(self._watched.root)
        if self._mode is None and len(self._stepped) == len(self._optimizers):
            self._finish()

    def _look_at_weights(self, optimizer: torch.optim.Optimizer) -> None:
        """Of an optimizer that may divide by zero: whether the step left the weights finite. If not, it is undone."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        before = self._kept.read()
        if isfinite(norm(parameters)) or before is None or self._tape is None:
            return
        found, at = born(optimizer, self._watched.root, before), callers(1)
        with torch.no_grad():
            for name, parameter in self._watched.root.named_parameters():
                parameter.copy_(before[name])
        again, self._wrong_at = self._wrong_at == self.number - 1, self.number
        if again:
            self._journal.line("still wrong", step=self.number, kind="weights")
            return
        trip = Trip("weights not finite after the optimizer's step", self.number, self._loss())
        trip.gradient_norm = norm([p.grad for p in parameters if p.grad is not None])
        trip.optimizer, trip.found = self._optimizers.index(optimizer), found
        trip.location = asdict(at[0]) if at else None
        self._trip(trip, self._case(self._tape.program))

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
        if loss is None or limit is None or loss <= limit or self.number - self._asked_at < EVERY_SPIKE:
            return None
        self._asked_at = self.number
        previous, tape = self._previous, self._tape
        if previous is None or tape is None or previous.overwritten:
            by_sample = True
        else:
            before = self._playing(self._earlier(previous, tape.program).outcome)
            by_sample = bool(before.error) or before.loss <= limit
        if by_sample:
            self._journal.line("spike", step=self.number, loss=loss, limit=limit, explained="by its sample")
            return None
        return SPIKE

    # -- playing ------------------------------------------------------------------------------------------------------------

    def _playing(self, play: Callable[[], T]) -> T:
        """Run something of ours: the hooks are deaf, and no autocast of the author's reaches it."""
        self._busy = True
        aside = self._mode is not None and self._mode.leave()
        try:
            with torch.enable_grad(), torch.autocast(self._watched.device, enabled=False, cache_enabled=False):
                return play()
        finally:
            self._busy = False
            if aside and self._mode is not None:
                self._mode.come_back()

    def _judge_pending(self) -> None:
        """Judge the step that was chosen to be recorded, once the author's gradients of it are gone."""
        program, self._pending = self._pending, None
        if program is None or program.overwritten:
            return
        player, step = self._watched.player(program, self._scale), self.number - 1
        last = self.history.steps[-1] if self.history.steps else None
        finding = self._playing(lambda: self._samples.judge(player, step, last, self._scaler is not None))
        report = self._samples.last
        if finding is not None and report is not None:
            finding.evidence |= {"step": step, "culprit": {"kind": Kind.MODEL.value}}
            report.findings.sort(key=lambda other: other is not finding)
            self._conclude(Case(player), Trip(f"{finding.name}, not there when the training began", step), report)

    def _case(self, program: Program, limit: float | None = None) -> Case:
        player, previous = self._watched.player(program, self._scale), self._previous
        usable = previous is not None and not previous.overwritten and previous.seen == program.seen
        now = self._watched.versions()
        return Case(
            player,
            self._earlier(previous, program) if usable and previous is not None else None,
            self._kept.read(),
            self.history.steps[-1].rate if self.history.steps else None,
            limit,
            self._fine_as_compiled(player),
            [name for name, version in now.items() if self._versions.get(name, version) != version],
        )

    def _earlier(self, previous: Program, program: Program) -> Player:
        """The batch of the step before on the model as it is now, buffers included."""
        return self._watched.player(replace(previous, buffers=program.buffers), self._scale)

    def _fine_as_compiled(self, player: Player) -> bool | None:
        """Whether the step is fine when it is run again as compiled; None where nothing is compiled."""
        if not self._watched.compiled:
            return None
        again = Player(player.program, player.model, player.facts, player.scale, compiled=self._watched.compiled)
        return self._playing(again.outcome).finite

    def _trip(self, trip: Trip, case: Case) -> None:
        self._conclude(case, trip, self._playing(lambda: explained(case, trip, self._samples.norms)))

    def _conclude(self, case: Case, trip: Trip, report: Any) -> None:
        self._samples.accept(report.findings)
        error = self._trips.conclude(report, case, trip, self._samples.last)
        if self._on_trip == "raise":
            self.close()
            raise error
