"""Where non-finite values are born in a run, what they poison, and whether it matters.

A birth is an op with finite inputs and a non-finite result. From there the poison spreads (victims) until it reaches the loss,
an output or a parameter's gradient, is discarded, or is healed: an op turns it into a finite number, which may be right
(a masked score in a softmax) or wrong (the reciprocal of an overflow is 0). Only the outcome tells a defect from a mask:
an infinity is somewhere in one of six healthy models, a value above 65,504 in one of five.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stabdiag.evidence.graph.main_path import LAYER_OPS, is_live
from stabdiag.trace import Op, Run, Value
from stabdiag.trace.counterpart import Counterparts
from stabdiag.trace.formats import FORMATS, Format, format_of

# Ops that write a constant into a tensor: an infinity in their arguments is the author's intention.
# fmt: off
WRITES_A_CONSTANT = frozenset((
    "masked_fill", "full", "full_like", "new_full", "fill", "where", "scalar_tensor", "index_fill",
    "constant_pad_nd",
))
# fmt: on
ADDS = frozenset(["add", "sub", "rsub", "addmm", "baddbmm", "sum", "mean", "addcmul"])
"""Ops in whose result a part may go under: it is still wrong there, by little."""
HEALED_WRONG = 0.5  # relative error of a finite result made from a non-finite one; an unharmed result has at most a few u
UNHARMED = 16.0  # units of roundoff up to which a result counts as right


@dataclass(eq=False)
class Birth:
    """One origin of non-finite values.

    Attributes:
        op: that made them; value: what it made.
        leaf: id of the parameter or input that was non-finite to begin with (`op` is then the first that read it), else None.
        intended: a constant infinity written by the author.
        became_nan: the op that turned it into NaN, itself if it made NaN.
        victims: ops after it with non-finite results.
        healed: ops that made finite results of it.
        reaches: "loss", "outputs", "gradients": where it ends up.
    """

    op: Op
    value: Value
    leaf: int | None = None
    intended: bool = False
    became_nan: Op | None = None
    victims: list[int] = field(default_factory=list)
    healed: list[int] = field(default_factory=list)
    reaches: list[str] = field(default_factory=list)


def births(run: Run) -> list[Birth]:
    """Every birth of a run in order of execution."""
    found: list[Birth] = []
    origin: dict[int, Birth] = {}  # of the poison in a value
    for op in run.ops:
        poisoned = [origin[v] for v in op.inputs if v in origin]
        if op.view and op.name != "_to_copy":  # a cast can overflow, other views cannot
            if poisoned:
                origin.update(dict.fromkeys(op.outputs, poisoned[0]))
            continue
        bad = [run.values[v] for v in op.outputs if _nonfinite(run.values[v])]
        if not bad:
            for birth in dict.fromkeys(poisoned):
                birth.healed.append(op.index)
            continue
        nan = any(v.stats is not None and v.stats.nan for v in bad)
        birth_of = _birth(run, op, bad[0], nan, poisoned)
        if birth_of not in found:
            found.append(birth_of)
        elif birth_of.op is not op:
            birth_of.victims.append(op.index)
        if nan and birth_of.became_nan is None:
            birth_of.became_nan = op
        origin.update({v: birth_of for v in op.outputs if _nonfinite(run.values[v])})
    _outcomes(run, origin)
    return found


def _birth(run: Run, op: Op, value: Value, nan: bool, poisoned: list[Birth]) -> Birth:
    if poisoned:
        guilty = [b for b in poisoned if not b.intended or b.became_nan is not None]
        if nan and not guilty:
            return Birth(op, value)  # NaN made of an intended infinity: this is where it went wrong
        return min(guilty or poisoned, key=lambda b: b.op.index)
    leaves = [i for v in op.inputs if run.values[i := run.behind_views(v)].op is None]
    broken = next((i for i in leaves if run.values[i].kind != "constant" and _broken_leaf(run, run.values[i])), None)
    if broken is not None:
        return Birth(op, value, leaf=broken)
    constant = any(run.values[i].kind == "constant" and _nonfinite(run.values[i]) for i in leaves)
    return Birth(op, value, intended=not nan and (op.name in WRITES_A_CONSTANT or constant))


def _nonfinite(value: Value) -> bool:
    return value.stats is not None and value.stats.nonfinite > 0


def _broken_leaf(run: Run, value: Value) -> bool:
    if value.kind == "parameter":
        return any(p.name == value.name and p.stats is not None and p.stats.nonfinite for p in run.parameters)
    return _nonfinite(value)


def _outcomes(run: Run, origin: dict[int, Birth]) -> None:
    if run.loss_value is not None and run.loss_value in origin:
        origin[run.loss_value].reaches.append("loss")
    for value_id in run.outputs:
        birth = origin.get(value_id)
        stats = run.values[value_id].stats
        if birth is not None and (not birth.intended or (stats is not None and stats.nan)) and "outputs" not in birth.reaches:
            birth.reaches.append("outputs")
    if any(p.gradient is not None and p.gradient.nonfinite for p in run.parameters):
        for value_id, birth in origin.items():
            made_by = run.values[value_id].op
            backward = made_by is not None and run.ops[made_by].phase == "backward"
            meant = birth.intended and birth.became_nan is None
            if backward and not meant and _nonfinite(run.values[value_id]) and "gradients" not in birth.reaches:
                birth.reaches.append("gradients")


def healed_wrong(run: Run, birth: Birth) -> Op | None:
    """The first live op that made a finite but wrong number of the poison, against the reference, if what is computed from it
    is wrong, too; None if none did.

    An infinity that the author wrote is in the reference too, and no reason for a difference from it; nor is a constant.
    """
    if birth.intended:
        return None
    for index in birth.healed:
        op = run.ops[index]
        value = run.output_of(op)
        if op.name in WRITES_A_CONSTANT and op.name != "where":
            continue
        wrong = value is not None and value.error is not None and value.error > HEALED_WRONG and is_live(run, index)
        if wrong and (op.phase == "backward" or stays_wrong(run, op)):
            return op
    return None


def stays_wrong(run: Run, op: Op) -> bool:
    """Whether a wrong result is wrong for what is computed from it: the smallest number of a format in place of -inf is as good
    for a softmax, a maximum, a selection. A sum or a product of matrices only hides it among others."""
    stack, seen = [*op.outputs], set[int]()
    unit = format_of(run.precision).unit_roundoff
    outputs = set(run.outputs) if run.output_error is None or run.output_error > UNHARMED * unit else set()
    while stack:
        value_id = stack.pop()
        if value_id == run.loss_value or value_id in outputs:
            return True
        for reader in run.consumers(value_id):
            output = run.output_of(reader)
            floats = output is not None and output.dtype in FORMATS
            if reader.index in seen or reader.phase == "backward" or not floats or not is_live(run, reader.index):
                continue
            seen.add(reader.index)
            assert output is not None
            if reader.view or output.error is None or output.error > HEALED_WRONG:
                stack += reader.outputs
            else:
                most = 1.0 if reader.name in ADDS | LAYER_OPS else UNHARMED
                if output.error > most * unit:
                    return True
    return False


def harmful(run: Run) -> list[Birth]:
    """Births that matter. What the backward pass bears after a poisoned loss is a consequence and left out, and so are repeats
    of the same line."""
    found: list[Birth] = []
    lines: set[object] = set()
    broken_forward = False
    for birth in births(run):
        backward = birth.op.phase == "backward"
        matters = bool({"loss", "outputs"} & set(birth.reaches)) or (
            "gradients" in birth.reaches if backward else healed_wrong(run, birth) is not None or "gradients" in birth.reaches
        )
        at = birth.op.location
        line = (birth.op.phase, at.path, at.line, at.library) if at is not None else (birth.op.phase, birth.op.module)
        if not matters or (backward and broken_forward) or line in lines:
            continue
        lines.add(line)
        broken_forward |= not backward
        found.append(birth)
    return found


def overflowed(run: Run, birth: Birth, there: Counterparts | None, format: Format) -> float | None:
    """The largest magnitude that the reference run has where a run has infinities, when that is finite and beyond the format's
    range (what carries the gradient: under this run's loss scale); None when the birth is something else."""
    stats = birth.value.stats
    if there is None or stats is None or (stats.nan and birth.leaf is None):
        return None
    other = there.value(run, birth.op.outputs[0] if birth.leaf is None else birth.leaf)
    if other is None or other.stats is None or other.stats.nonfinite:
        return None
    scaled = birth.leaf is None and birth.op.outputs[0] in carriers(run)
    largest = other.stats.max_abs * (run.loss_scale / there.other.loss_scale if scaled else 1.0)
    return largest if largest > format.max else None


def carriers(run: Run) -> set[int]:
    """Ids of the values of the backward pass that a loss scale multiplies: those computed from what the pass starts with. The
    others are factors of derivatives, computed again from values of the forward pass."""
    found: set[int] = set()
    for op in run.phase("backward"):
        if not found or not found.isdisjoint(op.inputs):
            found.update(op.outputs)
    return found


def named(run: Run, leaf: int) -> str:
    """A leaf in words: "input `ids`", "parameter `head.weight`"."""
    return f"{run.values[leaf].kind} `{run.values[leaf].name}`"
