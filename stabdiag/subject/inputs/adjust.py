"""What to change in the inputs after a trial forward refused them.

The call that refused tells most: a Linear that got 400 features and has 256 says so in the shapes of its arguments. A size is
traced to the input dimension that has it, or that it is a multiple of, or, behind convolutions, solved for by trying sizes.
What the message says is read for numbers and kinds only.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from stabdiag.subject.inputs.mismatch import from_message, from_shapes
from stabdiag.subject.inputs.signature import guesses
from stabdiag.subject.inputs.specification import SAMPLES, Specification
from stabdiag.subject.inputs.trial import Trial

Plan = tuple[Specification, ...]

_SIZES = (32, 28, 64, 96, 128, 224, 48, 84, 256, 299, 192, 227, 112, 160, 240, 320, 384, 512, 16, 572)
"""Image sizes in use, the cheap ones early."""


def proposals(plan: Plan, trial: Trial, model: nn.Module, parameters: list[inspect.Parameter]) -> Iterator[Plan]:
    """Plans that may get further, the likeliest first."""
    said = str(trial.error)
    yield from _entries(plan, trial, model)
    yield from _added(plan, said, model, parameters, named_only=True)
    yield from _dtypes(plan, trial, said, model)
    shapes = list(dict.fromkeys(from_shapes(trial)))
    numbers = [pair for pair in dict.fromkeys(from_message(said)) if pair not in shapes]
    if re.search("too small|greater than actual input", said):
        for size in _SIZES:
            yield _with_sides(plan, size)
    for have, want in shapes + numbers:
        yield from _resized(plan, have, want)
    yield from _configured_sizes(plan, model)
    for have, want in shapes:
        yield from _proportional(plan, have, want)
        yield from _shared(plan, have, want)
    for have, want in shapes or numbers[:6]:
        yield from _solved(plan, have, want)
    yield from _ranks(plan, said)
    for have, want in shapes + numbers:
        yield from _resized(plan, have, want, samples=True)
    yield from _guessed_again(plan, model, parameters)
    if len(plan) > 1:
        yield from _alike(plan)
    for factor in (2, 3, 4):
        yield from _wider(plan, factor)
    for size in _SIZES:
        yield _with_sides(plan, size)
    yield from _added(plan, said, model, parameters, named_only=False)
    for length in (16, 32, 8, 64, 128, 10, 20, 50, 100, 256, 512, 1):
        yield tuple(_longer(old, length) for old in plan)


def _with(plan: Plan, index: int, new: Specification) -> Plan:
    return (*plan[:index], new, *plan[index + 1 :])


def _resized(plan: Plan, have: int, want: int, samples: bool = False) -> Iterator[Plan]:
    """The dimension that is `have` becomes `want`; the number of samples only when asked for."""
    for index, old in enumerate(plan):
        spots = [d for d, size in enumerate(old.shape) if size == have and (d == old.batch) == samples]
        if len(old.shape) >= 4 and len([d for d in spots if d > 1]) == len(old.shape) - 2:
            # All sides are alike: change them together, or it was chance that they are `have`.
            spots = [d for d in spots if d < 2]
            if want <= 512:
                yield _with(plan, index, replace(old, shape=(*old.shape[:2], *(want,) * (len(old.shape) - 2))))
        for spot in spots:
            batch = None if samples else old.batch
            yield _with(plan, index, replace(old, shape=(*old.shape[:spot], want, *old.shape[spot + 1 :]), batch=batch))
        if len(spots) > 1:
            yield _with(plan, index, replace(old, shape=tuple(want if s == have else s for s in old.shape)))
        if old.values in ("lengths", "integers") and old.high == have and want > 0:
            yield _with(plan, index, replace(old, high=want))
    yield tuple(
        replace(old, shape=tuple(want if s == have and (d == old.batch) == samples else s for d, s in enumerate(old.shape)))
        for old in plan
    )


def _proportional(plan: Plan, have: int, want: int) -> Iterator[Plan]:
    """Channels and features change in proportion, or by the difference where something of fixed size is joined to them.

    Sides of images do not: behind convolutions one side alone would come out right only by chance.
    """
    for index, old in enumerate(plan):
        # Of clips (samples, frames, channels, height, width) the third may be the channels.
        last = {4: 1, 5: 2}.get(len(old.shape), len(old.shape) - 1)
        for spot, size in enumerate(old.shape[: last + 1]):
            if spot == old.batch or size <= 0 or have <= 0:
                continue
            sizes = []
            if have % size == 0 and (size * want) % have == 0 and (len(old.shape) < 5 or spot < 2):
                sizes.append(size * want // have)
            if spot and old.values in ("normal", "pair"):
                sizes.append(size + want - have)
            for new in sizes:
                if new > 0:
                    yield _with(plan, index, replace(old, shape=(*old.shape[:spot], new, *old.shape[spot + 1 :])))
        if len(old.shape) == 2 and old.dtype.is_floating_point:
            # Some model reshapes flat features itself: (samples, tokens × features).
            yield _with(plan, index, replace(old, shape=(old.shape[0], want)))


def _shared(plan: Plan, have: int, want: int) -> Iterator[Plan]:
    """All arguments change in proportion: they are concatenated, and each gets its share."""
    shapes = [(old.shape[-1] * want, old) for old in plan if old.values == "normal" and len(old.shape) == 2]
    if len(shapes) > 1 and have > 0 and all(total % have == 0 and total >= have for total, _ in shapes):
        yield tuple(
            replace(old, shape=(old.shape[0], old.shape[-1] * want // have))
            if old.values == "normal" and len(old.shape) == 2
            else old
            for old in plan
        )


def _guessed_again(plan: Plan, model: nn.Module, parameters: list[inspect.Parameter]) -> Iterator[Plan]:
    """The next guess for each argument, for those that were left out first."""
    for index, old in sorted(enumerate(plan), key=lambda item: item[1].values != "none"):
        entry = old.name.partition("[")[2].rstrip("]")
        parameter = next((p for p in parameters if p.name == old.name), None)
        if entry.isidentifier():
            parameter = inspect.Parameter(entry, inspect.Parameter.KEYWORD_ONLY)
        if parameter is not None and old.values != "mapping":
            for guess in guesses(parameter, model, index, len(plan)):
                yield _with(plan, index, replace(guess, name=old.name))


def _wider(plan: Plan, factor: int) -> Iterator[Plan]:
    """Features that the model splits into parts before its first layer."""
    for index, old in enumerate(plan):
        if old.values == "normal" and 2 <= len(old.shape) <= 3:
            yield _with(plan, index, replace(old, shape=(*old.shape[:-1], factor * old.shape[-1])))


def _entries(plan: Plan, trial: Trial, model: nn.Module) -> Iterator[Plan]:
    """A dict in place of a tensor that is asked for a key, with each key that is missed."""
    missed = trial.error.args[0] if isinstance(trial.error, KeyError) and trial.error.args else None
    for index, old in enumerate(plan):
        argument, _, key = old.name.partition("[")
        if isinstance(missed, str) and (key or old.values == "mapping"):
            entry = inspect.Parameter(missed, inspect.Parameter.KEYWORD_ONLY) if missed.isidentifier() else None
            for guess in guesses(entry, model, index, len(plan)) if entry else ():
                if guess.values != "none":
                    kept = plan if key else plan[:index] + plan[index + 1 :]
                    yield (*kept, replace(guess, name=f"{argument}[{missed}]"))
            return
    if trial.function in ("__getitem__", "getitem") and len(trial.arguments) > 1 and isinstance(trial.arguments[1], str):
        for index, old in enumerate(plan):
            if "[" not in old.name:
                why = f"{old.name} is a dict"
                yield _with(plan, index, Specification(old.name, (), values="mapping", batch=None, why=why))


def _alike(plan: Plan) -> Iterator[Plan]:
    """Several arguments of the same kind: anchor, positive and negative, left and right."""
    for model in plan:
        yield tuple(replace(model, name=old.name) for old in plan)
    for index, old in enumerate(plan):
        for other in plan:
            if other is not old:
                yield _with(plan, index, replace(other, name=old.name))


def _solved(plan: Plan, have: int, want: int) -> Iterator[Plan]:
    """Sizes of images, volumes, clips and signals from which a flattened or patched size may come out right.

    Behind convolutions a flattened size goes with the power of the side, so the side is estimated from the ratio; of the sizes
    near the estimate those in use come first, as strides and pooling round and several may do.
    """
    for index, old in enumerate(plan):
        spatial = len(old.shape) - 2
        if spatial < 1 or not old.dtype.is_floating_point or have <= 0 or want <= 0:
            continue
        side = old.shape[-1]
        estimates = [side * (want / have) ** (1 / spatial)]
        if want > 1 and have > 1:
            estimates.append(side * ((want - 1) / (have - 1)) ** (1 / spatial))
        for exact in estimates:
            for size in _near(exact):
                yield _with(plan, index, replace(old, shape=(*old.shape[:2], *(size,) * spatial)))
        for frames in (16, 8, 32) if spatial == 3 else ():
            for size in _near(side * math.sqrt(want / have * old.shape[2] / frames)):
                yield _with(plan, index, replace(old, shape=(*old.shape[:2], frames, size, size)))


def _near(exact: float) -> list[int]:
    used = sorted((s for s in _SIZES if abs(s / exact - 1) < 0.25), key=lambda s: abs(s - exact))
    tried = [*used, round(exact), *(m * max(1, round(exact / m)) for m in (2, 4, 8, 14, 16))]
    tried += [round(exact) + d for d in (1, -1, 2, -2, 3, -3, 4, -4, 6, 8)]
    return [size for size in dict.fromkeys(tried) if 0 < size <= 1024]


def _configured_sizes(plan: Plan, model: nn.Module) -> Iterator[Plan]:
    """Image sizes that a module keeps as an attribute (`image_size`, `img_size`)."""
    for module in model.modules():
        for name in ("image_size", "img_size", "input_size", "input_resolution", "resolution", "sample_size"):
            size: Any = vars(module).get(name)
            if isinstance(size, list | tuple) and size:
                size = size[-1]
            if isinstance(size, int) and 0 < size <= 1024:
                yield _with_sides(plan, size)


def _with_sides(plan: Plan, size: int) -> Plan:
    return tuple(
        replace(old, shape=(*old.shape[:2], *(size,) * (len(old.shape) - 2)))
        if len(old.shape) >= 4 and old.dtype.is_floating_point
        else old
        for old in plan
    )


def _longer(old: Specification, length: int) -> Specification:
    if old.values == "lengths":
        return replace(old, high=length)
    if len(old.shape) == 2 and old.values in ("integers", "ones") and old.batch is not None:
        return replace(old, shape=(old.shape[0], length))
    if len(old.shape) == 3 and old.batch is not None:
        spot = 1 if old.batch == 0 else 0
        return replace(old, shape=(*old.shape[:spot], length, *old.shape[spot + 1 :]))
    return old


def _dtypes(plan: Plan, trial: Trial, said: str, model: nn.Module) -> Iterator[Plan]:
    """Ids where a table is indexed, smaller ids where they were out of range, floats where arithmetic wants them."""
    tables = [a for a in trial.arguments if isinstance(a, torch.Tensor) and a.dim() == 2]
    if trial.function in ("embedding", "embedding_bag") and tables:
        rows = tables[-1].shape[0]
        for index, old in enumerate(plan):
            if old.values in ("normal", "ones"):
                shape = old.shape if len(old.shape) <= 2 else old.shape[:2]
                yield _with(plan, index, Specification(old.name, shape, torch.int64, "integers", rows, old.batch, "token ids"))
                yield _with(
                    plan,
                    index,
                    Specification(old.name, (SAMPLES, 24), torch.int64, "integers", rows, 0, f"ids below {rows}"),
                )
                yield _with(
                    plan, index, Specification(old.name, (SAMPLES,), torch.int64, "integers", rows, 0, f"ids below {rows}")
                )
            elif old.values in ("integers", "steps") and old.high > rows:
                yield _with(plan, index, replace(old, high=rows))
    wants_integers = re.search(r"indices|\bLong\b|\bInt\b|int64|index(es|ing)?|one_hot", said)
    if wants_integers:
        for index, old in enumerate(plan):
            if old.values in ("normal", "ones", "steps") and old.dtype.is_floating_point:
                rows = next((m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)), 2)
                values = old.values if old.values == "steps" else "integers"
                yield _with(plan, index, replace(old, dtype=torch.int64, values=values, high=old.high or rows))
    if re.search(r"out of (range|bounds)", said):
        for index, old in enumerate(plan):
            if old.values in ("integers", "steps") and old.high > 2:
                for high in (1000, 100, 10, 2):
                    if high < old.high:
                        yield _with(plan, index, replace(old, high=high))
    if re.search(r"Float|floating|dtype|Half|same type|Bool|bool", said):
        for index, old in enumerate(plan):
            if not old.dtype.is_floating_point and old.values in ("integers", "ones", "steps", "lengths"):
                values = "normal" if old.values == "integers" else old.values
                yield _with(plan, index, replace(old, dtype=torch.float32, values=values))
            if old.values == "ones" and old.dtype != torch.bool:
                yield _with(plan, index, replace(old, dtype=torch.bool))
            if old.values == "ones" and old.dtype != torch.int64:
                yield _with(plan, index, replace(old, dtype=torch.int64))


def _ranks(plan: Plan, said: str) -> Iterator[Plan]:
    """More or fewer dimensions, where the message speaks of them."""
    if not re.search(
        r"[Dd]imension|\dD|dim\b|dims|unpack|tuple index|permut|transpos|rank|size of|shape|einsum|subscript", said
    ):
        return
    for index, old in enumerate(plan):
        if old.values == "normal" and old.dtype.is_floating_point and old.shape:
            width = old.shape[-1] if len(old.shape) <= 3 else old.shape[1]
            channels = old.shape[1] if len(old.shape) > 1 else 1
            for shape in (
                (SAMPLES, 24, width),
                (SAMPLES, width),
                (SAMPLES, channels, 32, 32),
                (SAMPLES, channels, 128),
                (SAMPLES, 1, 28, 28),
                (SAMPLES, 3, 32, 32),
                (SAMPLES, channels, 16, 16, 16),
                (SAMPLES, 12, 24, width),
                (SAMPLES, 4, channels, 32, 32),
                (SAMPLES,),
                (SAMPLES, 1),
            ):
                yield _with(plan, index, replace(old, shape=shape, batch=0))
        elif old.values in ("integers", "ones", "steps", "lengths"):
            for shape in ((SAMPLES,), (SAMPLES, 24), (SAMPLES, 1), (SAMPLES, 12, 24), (24,)):
                yield _with(plan, index, replace(old, shape=shape, batch=0 if shape[0] == SAMPLES else None))


def _added(plan: Plan, said: str, model: nn.Module, parameters: list[inspect.Parameter], named_only: bool) -> Iterator[Plan]:
    """One more optional argument: those the message names, else any whose default is None."""
    used = {old.name for old in plan}
    words = set(re.findall(r"\w+", said))
    for parameter in parameters:
        if parameter.name in used or parameter.default is parameter.empty or parameter.default is not None:
            continue
        if (parameter.name in words) != named_only:
            continue
        few = 3 if named_only else 2
        for guess, _ in zip(guesses(parameter, model, len(plan), len(plan) + 1), range(few), strict=False):
            if guess.values != "none":
                yield (*plan, guess)
