"""Inputs nobody gave: a first guess, trial forwards, repairs, until the model runs."""

from __future__ import annotations

import heapq
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stabdiag.recording.torch_private import tree_leaves
from stabdiag.subject.frames import one_line, place, user_traceback
from stabdiag.subject.inputs.adjust import Plan, proposals
from stabdiag.subject.inputs.mismatch import distance
from stabdiag.subject.inputs.signature import arguments_of, first_plan
from stabdiag.subject.inputs.specification import SAMPLES, Specification
from stabdiag.subject.inputs.trial import Trial, attempt, clone, untouched
from stabdiag.subject.seeds import seeded
from stabdiag.subject.subject import Inputs, SubjectError

TRIALS = 200
"""Most trial forwards of one search. Of them 1 to 5 are the rule; the rest is for what needs several sizes solved."""

WORK = 2e9
"""Multiply-adds of one forward up to which the batch grows: about half a second of a training step on one core."""


@dataclass(frozen=True)
class Inferred:
    """The plan that works, what the model returned for it, and in words why it looks as it does."""

    plan: Plan
    trial: Trial
    why: str


def infer(
    model: nn.Module,
    examples: list[tuple[tuple[int, ...], str, int | None, int]],
    shown: str,
    given: Plan = (),
) -> Inferred:
    """Find inputs that the model's forward takes.

    Args:
        model: in train mode; it is left as found (lazy layers initialised).
        examples: tensors the file itself makes, as of `usage.example_shapes`; tried first.
        shown: the model's name, for messages.
        given: what the command line says; kept as it is.

    Raises:
        SubjectError: kind "input", when none was found.
    """
    parameters = arguments_of(model)
    if not parameters:
        trial = attempt(model, Inputs())
        if trial.error is None:
            return Inferred((), trial, "forward takes no argument")
        raise refused(shown, trial.error, "forward")
    start = _settled(_in_dtype_of(model, first_plan(model, parameters)), given, parameters, shown)
    first: Trial | None = None
    for plan in (*(() if given else _from_examples(start, examples)), start):
        trial = attempt(model, draw(plan, parameters, 0))
        if trial.error is None:
            return _grown(model, plan, parameters, trial, fixed=plan is not start or bool(given), tries=1)
        first = trial
    assert first is not None
    return _search(model, start, first, parameters, shown, given)


def _in_dtype_of(model: nn.Module, plan: Plan) -> Plan:
    """Floating-point inputs in the dtype of the first parameter: what a model that its author cast to 16 bits is fed."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return tuple(replace(s, dtype=dtype) if s.dtype == torch.float32 else s for s in plan)


def _settled(start: Plan, given: Plan, parameters: list[inspect.Parameter], shown: str) -> Plan:
    """The first guess with what was given in its place: by name, or in the order of the arguments."""
    names = [p.name for p in parameters]
    free = [name for name in names if name not in {g.name for g in given}]
    settled = {s.name: s for s in start}
    for specification in given:
        if specification.name and specification.name not in names:
            raise SubjectError(
                f"--input {specification.name}=…: {shown}.forward takes no such argument; it takes {', '.join(names)}.", "usage"
            )
        if not specification.name and not free:
            raise SubjectError(f"--input was given {len(given)} times; {shown}.forward takes only {', '.join(names)}.", "usage")
        name = specification.name or free.pop(0)
        settled[name] = replace(specification, name=name)
    return tuple(sorted(settled.values(), key=lambda s: names.index(s.name)))


def draw(plan: Plan, parameters: list[inspect.Parameter], seed: int) -> Inputs:
    """The inputs of one plan: required arguments by position, optional ones by name."""
    generator = torch.Generator().manual_seed(1 + seed)
    values: dict[str, Any] = {}
    for specification in plan:
        argument, _, key = specification.name.partition("[")
        drawn = specification.sample(generator)
        if key:
            values.setdefault(argument, {})[key.rstrip("]")] = drawn
        else:
            values[argument] = drawn
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for position, parameter in enumerate(parameters):
        if parameter.name not in values:
            continue
        if len(args) == position and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            args.append(values[parameter.name])
        else:
            kwargs[parameter.name] = values[parameter.name]
    return Inputs(tuple(args), kwargs)


def refused(shown: str, error: Exception, kind: str, given: Plan = ()) -> SubjectError:
    """The sentence for a model that no inputs satisfied."""
    detail = user_traceback(error)
    if isinstance(error, RecursionError):
        return SubjectError(f"{shown}.forward calls itself without end{place(error)}; repair that first.", "forward", detail)
    said = f"{one_line(error)}{place(error)}"
    if given:
        wanted = ", ".join(map(str, given))
        return SubjectError(
            f"{shown}.forward raises {said} on --input {wanted}; pass shapes and dtypes that it takes.", "input", detail
        )
    return SubjectError(
        f"No inputs were found that {shown}.forward takes; it raises {said}. Add example_inputs() to the file, or pass "
        "--input SHAPE, for example --input 8x3x32x32.",
        kind,
        detail,
    )


def _search(
    model: nn.Module, start: Plan, first: Trial, parameters: list[inspect.Parameter], shown: str, given: Plan
) -> Inferred:
    """Best-first: repairs of the plan that got furthest, then of the next best."""
    tries, order, seen = 1, 0, {_key(start)}
    kept = {s for s in start if s.why == "--input"} if given else set()
    queue: list[tuple[float, float, int, Iterator[Plan]]] = []

    def push(plan: Plan, trial: Trial) -> None:
        nonlocal order
        order += 1
        heapq.heappush(queue, (-trial.progress, distance(trial), order, proposals(plan, trial, model, parameters)))

    push(start, first)
    best_error, best_progress = first.error, first.progress
    while queue and tries < TRIALS:
        level = queue[0]
        plan = next((p for p in level[3] if _key(p) not in seen), None)
        if plan is None:
            heapq.heappop(queue)
            continue
        seen.add(_key(plan))
        if _elements(plan) > 1 << 23 or not kept <= set(plan):
            continue
        trial = attempt(model, draw(plan, parameters, 0))
        tries += 1
        if trial.error is None:
            return _grown(model, plan, parameters, trial, fixed=True, tries=tries)
        if isinstance(trial.error, RecursionError):
            break
        misses_key = isinstance(trial.error, KeyError) and any(s.values == "mapping" or "[" in s.name for s in plan)
        if misses_key:
            trial.progress = int(-level[0]) + 1  # one more key is known than before
        if (-trial.progress, distance(trial)) < level[:2]:
            push(plan, trial)
        if trial.progress > best_progress:
            best_error, best_progress = trial.error, trial.progress
    assert best_error is not None
    raise refused(shown, best_error, "forward" if _authors_own(best_error) else "input", given)


def _grown(
    model: nn.Module, plan: Plan, parameters: list[inspect.Parameter], trial: Trial, fixed: bool, tries: int
) -> Inferred:
    """A free image size grows until the deepest convolution sees 4×4 positions, the batch while one forward stays cheap."""
    plan, trial = _unmasked(model, plan, parameters, trial)
    plan, trial = _real(model, plan, parameters, trial)
    why = "; ".join(f"{s.name}: {s.why}" if not s.why.startswith(s.name) else s.why for s in plan if s.why)
    if tries > 1:
        why += f"; sizes repaired in {tries} trial forwards"
    if not fixed and trial.smallest is not None and trial.smallest < 16:
        for _ in range(2):
            larger = tuple(_doubled(s) for s in plan)
            again = attempt(model, draw(larger, parameters, 0))
            if again.error is not None:
                break
            plan, trial = larger, again
            if again.smallest is None or again.smallest >= 16:
                break
    if any(s.why == "--input" for s in plan):
        return Inferred(plan, trial, why)
    per_sample = max(1.0, _work(model, draw(plan, parameters, 0)) / SAMPLES)
    features = all(len(s.shape) <= 2 and s.dtype.is_floating_point and _elements((s,)) <= SAMPLES << 11 for s in plan)
    sizes = [n for n in ((64, 32, 16, 8) if features else (16, 8)) if n * per_sample <= WORK] or [4]
    for samples in sizes:
        bigger = tuple(_more(s, samples) for s in plan)
        again = attempt(model, draw(bigger, parameters, 0))
        if again.error is None:
            return Inferred(bigger, again, why)
    return Inferred(plan, trial, why)


def _unmasked(model: nn.Module, plan: Plan, parameters: list[inspect.Parameter], trial: Trial) -> tuple[Plan, Trial]:
    """Masks of the other sense, where ones left nothing but NaN to attend to (or zeros did)."""
    if not any(s.values in ("ones", "zeros") for s in plan) or _finite(trial.output):
        return plan, trial
    other = {"ones": "zeros", "zeros": "ones"}
    turned = tuple(replace(s, values=other.get(s.values, s.values)) for s in plan)
    again = attempt(model, draw(turned, parameters, 0))
    return (turned, again) if again.error is None and _finite(again.output) else (plan, trial)


def _real(model: nn.Module, plan: Plan, parameters: list[inspect.Parameter], trial: Trial) -> tuple[Plan, Trial]:
    """Floats where integers were guessed from some embedding, but nothing needs them: features next to token ids."""
    for index, old in enumerate(plan):
        if len(plan) > 1 and old.values == "integers" and old.batch is not None and not old.why.startswith(("as in", "--")):
            floats = replace(old, dtype=torch.float32, values="normal", high=0, why="features")
            tried = (*plan[:index], floats, *plan[index + 1 :])
            again = attempt(model, draw(tried, parameters, 0))
            if again.error is None:
                plan, trial = tried, again
    return plan, trial


def _finite(output: object) -> bool:
    found = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]
    return all(bool(leaf.isfinite().all()) for leaf in found)


def _more(specification: Specification, samples: int) -> Specification:
    return replace(specification, high=samples) if specification.values == "batched" else specification.resized(samples)


def _doubled(specification: Specification) -> Specification:
    if len(specification.shape) < 4 or not specification.dtype.is_floating_point:
        return specification
    sides = tuple(2 * side for side in specification.shape[2:])
    return replace(specification, shape=(*specification.shape[:2], *sides))


def _from_examples(start: Plan, examples: list[tuple[tuple[int, ...], str, int | None, int]]) -> Iterator[Plan]:
    """The file's own example tensors, in the order of the arguments."""
    fitting = [e for e in examples if len(e[0]) >= 1]
    if not fitting or not start:
        return
    groups = [fitting[i : i + len(start)] for i in range(min(6, len(fitting) - len(start) + 1))]
    for group in groups:
        plan = []
        for old, (shape, function, high, line) in zip(start, group, strict=False):
            why = f"as in line {line} of the file"
            if function == "randint":
                plan.append(Specification(old.name, (SAMPLES, *shape[1:]), torch.int64, "integers", high or 2, 0, why))
            else:
                plan.append(Specification(old.name, (SAMPLES, *shape[1:]), why=why))
        if all(len(p.shape) == len(o.shape) or len(start) == 1 for p, o in zip(plan, start, strict=True)):
            yield tuple(plan)


def _work(model: nn.Module, inputs: Inputs) -> float:
    """Multiply-adds of one forward, counted."""
    copied = clone(inputs)
    with untouched(model), seeded(0), torch.no_grad(), FlopCounterMode(display=False) as counter:
        try:
            model(*copied.args, **copied.kwargs)
        except Exception:
            return 0.0
    return float(counter.get_total_flops()) / 2


def _key(plan: Plan) -> tuple[tuple[object, ...], ...]:
    return tuple((s.name, s.shape, s.dtype, s.values, s.high) for s in plan)


def _elements(plan: Plan) -> int:
    return max((int(torch.Size(s.shape).numel()) for s in plan), default=0)


def _authors_own(error: Exception) -> bool:
    """Whether the author's own code raised on purpose, rather than torch over a shape or a type."""
    return isinstance(error, NotImplementedError | AttributeError | NameError | ZeroDivisionError | KeyError | OSError)
