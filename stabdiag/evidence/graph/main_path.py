"""The main path of a recorded run: what every signal from the input must pass on its way to the loss.

A forward op is on the main path when all ways from the source to the loss lead through it, that is when it post-dominates the
source (Lengauer & Tarjan 1979 for the notion; in a DAG recorded in execution order one backward sweep finds it). In a plain
network that is every layer; in a residual one it is the stream behind each addition, and what lies inside a branch is a second
population; across a U-Net's long skips it is short, and nothing is claimed about depth there. Names play no part.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from stabdiag.trace import Op, Run, Stats, Value
from stabdiag.trace.derived import derived

LAYER_OPS = frozenset(
    [
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "linear",
        "matmul",
        "convolution",
        "_convolution",
        "mkldnn_convolution",
        "embedding",
        "_embedding_bag",
        "_convolution_mode",
        "cudnn_convolution",
        "slow_conv2d",
        "_trilinear",
    ]
)


@dataclass(frozen=True, slots=True)
class Station:
    """A stop on the main path: the value behind one trained layer, or behind one residual block.

    Attributes:
        op: the op that made the value; value: what flows there, with `stats` and `gradient`.
        depth: how many stations lie before it.
        layers: the trained layers passed since the station before (more than one in a residual block).
    """

    op: Op
    value: Value
    depth: int
    layers: tuple[str, ...]

    @property
    def forward(self) -> Stats | None:
        """Statistics of the value."""
        return self.value.stats

    @property
    def gradient(self) -> Stats | None:
        """Statistics of the loss gradient with respect to the value."""
        return self.value.gradient


def chain(run: Run) -> list[Op]:
    """All ops of the main path, from source to loss, in order of execution. Empty when the run broke before the loss."""
    return [run.ops[i] for i in _chain(run)[0]]


def main_path(run: Run) -> list[Station]:
    """The stations of the main path, from the input side to the loss side."""
    path, region = _chain(run)
    return _stations(run, path, region)


def _stations(run: Run, path: list[int], region: list[int]) -> list[Station]:
    stations: list[Station] = []
    passed: list[str] = []
    start = 0
    for index in path:
        for i in region:
            if start <= i <= index and is_layer(run, run.ops[i]):
                passed.append(run.ops[i].layer)
        start = index + 1
        op = run.ops[index]
        output = run.output_of(op)
        if passed and output is not None and not op.view:
            stations.append(Station(op, output, len(stations), tuple(passed)))
            passed = []
    return stations


def longest_way(run: Run) -> list[Op]:
    """The ops of the way from an input to the loss that leads through the most layers, in order of execution.

    Where every layer reads all earlier ones, or long skips bypass the middle, next to nothing must be passed, and yet signal
    and gradient compound along this way.
    """
    ahead: dict[int, tuple[int, int]] = {}  # op -> (layers from here to the loss, next op)
    region = set(_chain(run)[1])
    for index in sorted(region, reverse=True):
        op = run.ops[index]
        readers = {reader.index for v in op.outputs for reader in run.consumers(v)} & ahead.keys()
        onward = max(readers, key=lambda i: (ahead[i][0], -i), default=-1)
        ahead[index] = (is_layer(run, op) + (ahead[onward][0] if onward >= 0 else 0), onward)
    starts = [i for i in region if any(v.kind == "input" for v in run.inputs_of(run.ops[i]))]
    index = max(starts, key=lambda i: (ahead[i][0], -i), default=-1)
    way = []
    while index >= 0:
        way.append(run.ops[index])
        index = ahead[index][1]
    return way


def is_layer(run: Run, op: Op) -> bool:
    """Whether an op applies a trained weight (two or more dimensions) to its input."""
    if op.name not in LAYER_OPS:
        return False
    return any(
        v.kind == "parameter" and len(v.shape) >= 2 for i in op.inputs for v in (run.values[run.behind_views(i)],)
    ) or any(_from_parameters(run, i) for i in op.inputs)


def _from_parameters(run: Run, value_id: int, steps: int = 40) -> bool:
    """Whether a value is computed from parameters alone (a parametrised, tied or recombined weight)."""
    stack, found = [value_id], False
    while stack:
        value = run.values[current := stack.pop()]
        op = run.producer(current)
        if op is None:
            if value.kind == "input":
                return False
            found |= value.kind == "parameter" and len(value.shape) >= 2
            continue
        if not op.recording:  # the power iteration of a spectral norm, which goes on from call to call
            continue
        steps -= 1
        if steps < 0:
            return False
        stack.extend(op.inputs)
    return found


@derived
def _chain(run: Run) -> tuple[list[int], list[int]]:
    """(main path, all ops on any way to the loss), as op indices in order of execution."""
    loss = None if run.loss_value is None else run.values[run.loss_value].op
    if loss is None:
        return [], []
    successors: dict[int, list[int]] = {loss: []}
    sources: list[int] = []
    depth, parent, distance = {loss: 0}, {loss: loss}, {loss: 0}
    for index in range(loss, -1, -1):
        if index not in successors:
            continue
        if index != loss:
            _place(index, successors[index], depth, parent)
            distance[index] = 1 + max(distance[i] for i in successors[index])
        before = set()
        if run.ops[index].name != "detach":  # the author cut the signal here
            before = {run.values[v].op for v in run.ops[index].inputs if _carries_signal(run, run.values[v])}
            before.discard(None)
        made: Any
        for made in before:
            if run.ops[made].phase in ("forward", "loss"):
                successors.setdefault(made, []).append(index)
        if not before:
            sources.append(index)
    region = sorted(successors)
    if not sources:
        return [], region
    # The data enters where the most must be passed from: positions, masks, adjacency matrices and the earlier steps of a
    # sequence join later or from the side, tables never are data.
    entries = _entries(run, region) or sources
    start = max(entries, key=lambda i: (depth[i], distance[i], -i))
    return _down(start, parent), region


def _down(index: int, parent: dict[int, int]) -> list[int]:
    path = [index]
    while parent[index] != index:
        path.append(index := parent[index])
    return path


def _entries(run: Run, region: list[int]) -> list[int]:
    """The ops at which inputs enter: the first to read one, and those that read one but no result of an op that did."""
    inside, touched, read = set(region), set[int](), set[int]()
    entries = []
    for index in region:
        op = run.ops[index]
        inputs = {i for i in op.inputs if run.values[i].kind == "input"}
        later = any(v.op in touched for v in run.inputs_of(op))
        if inputs - read or (not later and _reads_input(run, op, inside)):
            entries.append(index)
        if later or entries[-1:] == [index]:
            touched.add(index)
        read |= inputs
    return entries


def _reads_input(run: Run, op: Op, region: Container[int]) -> bool:
    """Whether an op reads an input itself, or by way of ops that hand no gradient back."""
    stack, seen = [op], set()
    while stack:
        for value in run.inputs_of(stack.pop()):
            if value.kind == "input":
                return True
            if value.op is not None and value.op not in region and value.op not in seen:
                seen.add(value.op)
                stack.append(run.ops[value.op])
    return False


def _carries_signal(run: Run, value: Value) -> bool:
    """Whether a value may hand a gradient back.

    Floats do, and so does what was compared or rounded from a float that has a gradient: the forward of a spiking unit or of a
    quantiser with a surrogate gradient.
    """
    if value.dtype.startswith(("float", "bfloat", "complex")):
        return True
    made_by = None if value.op is None else run.ops[value.op]
    return made_by is not None and any(v.gradient is not None for v in run.inputs_of(made_by))


def _place(index: int, successors: list[int], depth: dict[int, int], parent: dict[int, int]) -> None:
    """Hang an op below the nearest op that all its successors lead through."""
    meet = successors[0]
    for other in successors[1:]:
        while meet != other:
            if depth[meet] >= depth[other]:
                meet = parent[meet]
            else:
                other = parent[other]
    parent[index], depth[index] = meet, depth[meet] + 1


def is_live(run: Run, index: int) -> bool:
    """Whether the result of a forward op reaches the loss or an output through floating-point values (discarded branches and
    masks that only select do not). Everything counts as live in a run that broke before its loss; so does the backward pass."""
    return index in _live(run)


@derived
def _live(run: Run) -> set[int]:
    ends = [*run.outputs, *([] if run.loss_value is None else [run.loss_value])]
    stack = [op for v in ends if (op := run.values[v].op) is not None]
    if run.error is not None or run.loss_value is None:
        return set(range(len(run.ops)))
    live = {op.index for op in run.phase("backward", "step")}
    while stack:
        index = stack.pop()
        if index in live:
            continue
        live.add(index)
        stack.extend(op for v in run.ops[index].inputs if (op := run.values[v].op) is not None)
    return live


def downstream(run: Run, index: int) -> list[int]:
    """Indices of the ops that an op's results flow into."""
    reached, found = set(run.ops[index].outputs), []
    for op in run.ops[index + 1 :]:
        if op.phase == "backward" and op.forward in found:
            found.append(op.index)
        elif reached.intersection(op.inputs):
            reached.update(op.outputs)
            found.append(op.index)
    return found
