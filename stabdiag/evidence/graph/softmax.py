"""Softmax in the recorded graph: where one is, whether it is attention, where its mask comes from, who reads its result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stabdiag.evidence.graph.main_path import is_layer
from stabdiag.evidence.graph.nonlinearity import shown
from stabdiag.evidence.graph.origin import enlarged_by
from stabdiag.evidence.measure.softmax import by_hand_facts, masked_rows, softmax_facts
from stabdiag.evidence.signal.units import Site, sites
from stabdiag.rule import Measurement
from stabdiag.trace import Op, Run, Trace, Value
from stabdiag.trace.formats import FORMATS

PRODUCTS = ("bmm", "baddbmm", "mm", "addmm", "matmul", "einsum")
_ELEMENTWISE = (
    "add", "sub", "mul", "div", "masked_fill", "where", "clamp", "clamp_min", "clamp_max", "tanh", "native_dropout", "minimum",
    "maximum", "rsub", "neg", "exp", "slice_scatter", "copy", "native_layer_norm", "cat", "constant_pad_nd", "index_put",
)  # fmt: skip
_MASKING = ("masked_fill", "where", "index_put", "masked_scatter", "full_like", "full", "copy", "fill")


def by_hand(run: Run, op: Op) -> bool:
    """Whether a division is exp(z) / sum(exp(z))."""
    if len(op.inputs) != 2:
        return False
    above = run.behind_views(op.inputs[0])
    sums, exp = run.producer(run.behind_views(op.inputs[1])), run.producer(above)
    if exp is not None and exp.name in ("mul", "where", "masked_fill") and sums is not None and sums.name == "sum":
        exp = next((o for i in exp.inputs if (o := run.producer(run.behind_views(i))) is not None and o.name == "exp"), exp)
    return (
        sums is not None
        and exp is not None
        and sums.name == "sum"
        and exp.name == "exp"
        and run.behind_views(sums.inputs[0]) == above
    )


MEASUREMENTS = (
    Measurement("softmax", ("_softmax", "_safe_softmax"), softmax_facts, precisions=()),
    Measurement("log-softmax", ("_log_softmax",), masked_rows, precisions=()),
    Measurement("softmax-by-hand", ("div",), by_hand_facts, precisions=(), where=by_hand),
)


@dataclass(frozen=True)
class Softmax:
    """One softmax site of a run with its facts (`stabdiag.evidence.measure.softmax`)."""

    run: Run
    site: Site
    by_hand: bool

    @property
    def op(self) -> Op:
        """Its first call."""
        return self.site.op

    @property
    def rows(self) -> int:
        """Sampled rows with at least two unmasked keys."""
        return int(self.site.facts.get("rows", 0))

    @property
    def entropy(self) -> float | None:
        """Mean row entropy over the logarithm of the number of unmasked keys; None without rows."""
        return sum(self.site.facts["head_entropy"]) / self.rows if self.rows else None

    def head_entropies(self, batch: int) -> list[float]:
        """The same per head. A leading dimension that is a multiple of the batch size is samples × heads."""
        sums, rows = self.site.facts["head_entropy"], self.site.facts["head_rows"]
        shape = self.run.values[self.op.outputs[0]].shape
        heads = len(sums)
        if len(shape) == 3 and heads % batch == 0:
            heads = heads // batch or 1
        folded = [(sum(sums[h::heads]), sum(rows[h::heads])) for h in range(heads)]
        return [total / n for total, n in folded if n]

    @property
    def logits(self) -> int:
        """Value id of what enters the softmax (what enters exp where it is written by hand)."""
        value_id = self.op.inputs[0]
        if not self.by_hand:
            return value_id
        exp = self.run.producer(self.run.behind_views(value_id))
        while exp is not None and exp.name != "exp":
            exp = self.run.producer(self.run.behind_views(exp.inputs[0]))
        return exp.inputs[0] if exp is not None else value_id

    @property
    def zeros(self) -> int:
        """Probabilities of unmasked keys that are exactly 0, among the sampled rows. By hand, a mask and an underflow look
        alike in the numerator: they count where no logit is masked."""
        facts = self.site.facts
        if not self.by_hand:
            return int(facts["zeros"])
        return 0 if _masks(self.run.values[self.logits]) else int(facts["zeros"])

    @property
    def scores(self) -> Op | None:
        """The product of two activations that the logits come from: the softmax is an attention's. None for others."""
        return product_of_activations(self.run, self.logits)


def made_large(softmax: Softmax) -> Op:
    """What an author would edit to make the logits smaller: a factor in front, the product they come from, or the softmax."""
    return enlarged_by(softmax.run, softmax.logits) or softmax.scores or softmax.op


def projections(softmax: Softmax) -> dict[str, object]:
    """What normalising queries and keys takes: `projections`, the layers they come from, `head_width`, and `logit_scale`, what
    the products are multiplied by before the softmax. {} where they are not two layers."""
    run, scores = softmax.run, softmax.scores
    if scores is None:
        return {}
    layers = [_layer_of(run, i) for i in scores.inputs[-2:]]
    logits, product = run.values[run.behind_views(softmax.logits)].stats, run.output_of(scores)
    if None in layers or layers[0] == layers[1] or logits is None or product is None or product.stats is None:
        return {}
    if not product.stats.rms > 0 or not logits.rms > 0:
        return {}
    width = run.values[scores.inputs[-2]].shape[-1]
    return {"projections": layers, "head_width": width, "logit_scale": logits.rms / product.stats.rms}


def _layer_of(run: Run, value_id: int, limit: int = 24) -> str | None:
    """The module of the layer that a value comes from through views and elementwise ops."""
    while limit:
        limit -= 1
        op = run.producer(run.behind_views(value_id))
        if op is None:
            return None
        if is_layer(run, op):
            return op.layer
        if op.name not in _ELEMENTWISE or not op.inputs:
            return None
        value_id = op.inputs[0]
    return None


def softmaxes(run: Run) -> Iterator[Softmax]:
    """Every softmax site of a run, in order of execution (those by hand last)."""
    for name in ("softmax", "softmax-by-hand"):
        for site in sites(run, name).values():
            yield Softmax(run, site, name != "softmax")


def as_initialised(trace: Trace) -> bool:
    """Whether what was scanned is known to be fresh: it was built here and can be built again. Sharp heads of a trained model
    may be sharp on purpose."""
    return trace.subject.rebuildable


def product_of_activations(run: Run, value_id: int, limit: int = 60) -> Op | None:
    """Walk back from logits through elementwise ops to a matrix product of two values that depend on the input."""
    front, seen = [value_id], set()
    while front and limit:
        limit -= 1
        op = run.producer(front.pop(0))
        if op is None or op.index in seen:
            continue
        seen.add(op.index)
        if op.name in PRODUCTS:
            if len([i for i in op.inputs if depends_on_input(run, i)]) >= 2:
                return op
        elif op.view or op.name in _ELEMENTWISE:
            front.extend(op.inputs)
    return None


def depends_on_input(run: Run, value_id: int, limit: int = 400) -> bool:
    """Whether a value is computed from a floating-point or integer input of the model, not from parameters alone."""
    front, seen = [value_id], set()
    while front and limit:
        limit -= 1
        current = front.pop()
        value = run.values[current]
        if value.kind == "input":
            return True
        op = run.producer(current)
        if op is None or op.index in seen:
            continue
        seen.add(op.index)
        front.extend(op.inputs)
    return not limit


def is_masked(run: Run, value_id: int) -> bool:
    """Whether a value holds infinities, or large negative numbers that a masking op put there."""
    value = run.values[value_id := run.behind_views(value_id)]
    if value.stats is not None and value.stats.nonfinite:
        return True
    origin = mask_origin(run, value_id) if _masks(value) else None
    return origin is not None and origin.name in _MASKING


def mask_origin(run: Run, value_id: int, limit: int = 40) -> Op | None:
    """The op that put the mask into a row of logits: the last masked_fill or where, or the addition of which two large
    negatives gave -inf. None when the logits came masked from outside."""
    last: Op | None = None
    while limit and (op := run.producer(value_id)) is not None:
        limit -= 1
        name = op.name
        if name in _MASKING:
            return op
        masked = [i for i in op.inputs if _masks(run.values[i])]
        if name in ("add", "sub", "baddbmm") and not any(_infinite(run.values[i]) for i in op.inputs):
            made = run.output_of(op)
            if made is not None and _infinite(made):
                return op
        if name in ("add", "sub", "mul"):
            last = op
        following = masked or [i for i in op.inputs if run.values[i].stats is None] if not op.view else op.inputs[:1]
        if not following:
            return last
        value_id = following[0]
    return last


def readers(run: Run, value_id: int, names: tuple[str, ...]) -> list[Op]:
    """Forward and loss ops among `names` that read a value as it is: behind views, gathers and selections of it."""
    found: list[Op] = []
    front, seen = [value_id], set()
    while front:
        for each in shown(run, front.pop()):
            for user in run.consumers(each):
                if user.index in seen or user.phase not in ("forward", "loss"):
                    continue
                seen.add(user.index)
                if user.name in names:
                    found.append(user)
                elif user.name in ("gather", "index", "index_select", "take", "take_along_dim", "diagonal"):
                    front.extend(user.outputs[:1])
    return found


def _infinite(value: Value) -> bool:
    return value.stats is not None and value.stats.neginf > 0


def _masks(value: Value) -> bool:
    """Whether a value holds -inf or a large negative constant."""
    if value.stats is None or value.dtype not in FORMATS:
        return False
    return value.stats.neginf > 0 or value.stats.min <= -FORMATS[value.dtype].max / 4 or value.stats.min <= -9e3
